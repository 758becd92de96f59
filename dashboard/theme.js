// Streamlit stores a theme in the browser per page path and reads it when the page loads. It has no call to set the
// theme, so this writes the entries of its own menu, for every page.

const kept = (path) => `stActiveTheme-${new URL(path, document.baseURI).pathname}-v2`;

export default function ({ data: { paths }, parentElement }) {
  const select = parentElement.querySelector("select");
  select.value = JSON.parse(localStorage.getItem(kept("settings"))) ?? "System";
  select.onchange = () => {
    for (const path of paths) localStorage.setItem(kept(path), JSON.stringify(select.value));
    location.reload();
  };
}
