"""Notifications in headless Chromium: asked for after a click, as plain text, also with the page in the background."""

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from calibrl.client import Client
from tests.support.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.browser, pytest.mark.slow]

# Headless Chromium shows none: keep what a page gives the browser.
KEPT = """
window.shown = []; window.asked = 0;
window.Notification = class {
  static permission = sessionStorage.getItem("permission") ?? "default";
  static async requestPermission() {
    window.asked += 1;
    sessionStorage.setItem("permission", "granted");
    return (Notification.permission = "granted");
  }
  constructor(title, options) { window.shown.push([title, options.body]); }
};
"""
SPEC: dict[str, Any] = {
    "kind": "train",
    "model": {"builtin": "tiny-vlm"},
    "data": {"builtin": "digits"},
    "steps": 100_000,
}


def test_a_person_is_notified_after_turning_it_on(page: Page, client: Client) -> None:
    page.add_init_script(KEPT)
    page.goto("/settings")
    button = page.get_by_role("button", name="Turn on notifications")
    expect(button).to_be_visible()
    page.wait_for_function("window.calibrlNotifications")
    job = client.submit({**SPEC, "name": "a.run"})
    page.evaluate("window.calibrlNotifications.ask()")
    assert page.evaluate("[window.asked, window.shown.length]") == [0, 0]  # nothing without the click
    button.click()
    expect(page.get_by_text("On in this browser.")).to_be_visible()
    assert page.evaluate("window.asked") == 1
    page.wait_for_function("Object.values(localStorage).some(text => text.includes('known'))")
    other = page.context.new_page()  # now the first is in the background
    other.goto("about:blank")
    other.bring_to_front()
    client.cancel(job.id)
    eventually(lambda: client.job(job.id).status.final)
    page.evaluate("window.calibrlNotifications.ask()")
    page.evaluate("window.calibrlNotifications.ask()")  # the same news again
    assert page.evaluate("window.shown") == [["a.run", "Job cancelled"]]
    other.close()
    page.get_by_role("button", name="Turn off notifications").click()
    expect(page.get_by_text("Off in this browser.")).to_be_visible()
