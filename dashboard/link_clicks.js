// A live list is redrawn every few seconds. If that happens while a link is pressed, the link is no longer there when
// the mouse button is released, and the browser opens nothing. This opens the pressed link. It listens once per page.
// The link back to the list opens it with the filters with which it was left, and a panel is a step of the history.

const LIST = "calibrl-list"; // the query of the list's URL, per tab

function listen() {
  let pressed = null;
  const list = new URL(".", document.baseURI).pathname;
  const plain = (event) => event.button === 0 && !(event.ctrlKey || event.metaKey || event.shiftKey || event.altKey);
  const start = (event) => {
    pressed = plain(event) ? event.target.closest("a[href]") : null;
    if (pressed && location.pathname === list) sessionStorage.setItem(LIST, location.search);
  };
  const end = (event) => {
    if (pressed && !pressed.isConnected && plain(event)) location.assign(pressed.href);
    pressed = null;
  };
  const leave = (event) => {
    if (!plain(event) || !event.target.closest(".st-key-all-jobs a[href]")) return;
    event.preventDefault();
    event.stopPropagation();
    location.assign(list + (sessionStorage.getItem(LIST) ?? ""));
  };
  // The browser's Back leads to the panel before.
  const replace = history.replaceState.bind(history);
  history.replaceState = (state, title, url) => {
    const panel = (address) => new URL(address, document.baseURI).searchParams.get("panel");
    const moved = url && location.pathname.endsWith("/job") && panel(url) !== panel(location.href);
    (moved ? history.pushState.bind(history) : replace)(state, title, url);
  };
  document.addEventListener("click", leave, true);
  document.addEventListener("mousedown", start, true);
  document.addEventListener("mouseup", end, true);
  return true;
}

export default function () {
  window.calibrlLinkClicks ??= listen();
}
