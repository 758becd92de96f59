// Streamlit keeps a theme in the browser for each page by its path, and reads it when that page loads. It has no call to
// set it, so this writes what its own menu would, for every page.

const kept = (path) => `stActiveTheme-${new URL(path, document.baseURI).pathname}-v2`;

export default function ({ data: { paths }, parentElement }) {
  const select = parentElement.querySelector("select");
  select.value = JSON.parse(localStorage.getItem(kept("settings"))) ?? "System";
  select.onchange = () => {
    for (const path of paths) localStorage.setItem(kept(path), JSON.stringify(select.value));
    location.reload();
  };
}
