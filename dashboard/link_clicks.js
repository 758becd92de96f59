// A live list is redrawn every few seconds. If that happens while a link is pressed, the link is no longer there when
// the mouse button is released, and the browser opens nothing. This opens the pressed link. It listens once per page.

function listen() {
  let pressed = null;
  const plain = (event) => event.button === 0 && !(event.ctrlKey || event.metaKey || event.shiftKey || event.altKey);
  const start = (event) => {
    pressed = plain(event) ? event.target.closest("a[href]") : null;
  };
  const end = (event) => {
    if (pressed && !pressed.isConnected && plain(event)) location.assign(pressed.href);
    pressed = null;
  };
  document.addEventListener("mousedown", start, true);
  document.addEventListener("mouseup", end, true);
  return true;
}

export default function () {
  window.calibrlLinkClicks ??= listen();
}
