// Notifications of the browser: a job that the viewer submitted or watches has ended, or has a new alert. The page asks
// its own server for the states of these jobs and compares them with those of the last time, which the browser keeps.
// Texts of notifications are plain text. One tab at a time asks. Nothing is sent to another service.

const EVERY = 20000; // milliseconds between two reads; a browser can delay those of a page in the background by a minute
const MOST = 20; // watched jobs
const NAME = "calibrl-notifications"; // of the entry in the browser's storage, with the name of the viewer
const possible = () => window.isSecureContext && "Notification" in window;

function stored(user) {
  try {
    return JSON.parse(localStorage.getItem(`${NAME}:${user}`)) ?? {};
  } catch {
    return {};
  }
}

function store(user, changes) {
  localStorage.setItem(`${NAME}:${user}`, JSON.stringify({ ...stored(user), ...changes }));
}

function show(id, title, body) {
  try {
    const shown = new Notification(title, { body, tag: `calibrl-${id}-${body}` });
    shown.onclick = () => {
      window.focus();
      location.assign(new URL(`job?id=${id}`, document.baseURI));
    };
  } catch {
    // Some phones show notifications for installed pages only.
  }
}

async function read(user) {
  const { on, watched = [], known = {} } = stored(user);
  const tells = on && Notification.permission === "granted";
  if (!tells && !watched.length) return; // without notifications, only to drop watched jobs that have ended
  const open = Object.keys(known).filter((id) => !known[id].final);
  const ids = [...new Set([...watched, ...open])];
  const answer = await fetch(new URL(`news?jobs=${ids.join(",")}`, document.baseURI), { credentials: "same-origin" });
  if (!answer.ok) return;
  const news = await answer.json();
  const { known: before, at } = stored(user);
  if (news.user !== user) return; // another person has signed in
  for (const { id, name, status, final, finished, alerts } of tells && before ? news.jobs : []) {
    const was = before[id];
    for (const alert of alerts.filter((one) => !was?.alerts.includes(one))) show(id, name, `Alert: ${alert}`);
    if (final && (was ? !was.final : finished > at)) show(id, name, `Job ${status}`);
  }
  const now = news.jobs.map(({ id, final, alerts }) => [id, { final, alerts }]);
  const running = new Set(news.jobs.filter((job) => !job.final).map((job) => job.id));
  const kept = (stored(user).watched ?? []).filter((id) => running.has(id) || !watched.includes(id)); // or watched since
  store(user, { known: tells ? Object.fromEntries(now) : undefined, at: news.now, watched: kept });
}

function listen(user) {
  const ask = () => navigator.locks.request(NAME, { ifAvailable: true }, (lock) => lock && read(user));
  if (possible()) setInterval(() => ask().catch(() => {}), EVERY);
  return { ask };
}

function drawSwitch(button, text, user) {
  const on = stored(user).on && possible() && Notification.permission === "granted";
  button.hidden = !possible();
  button.textContent = on ? "Turn off notifications" : "Turn on notifications";
  if (!possible()) text.textContent = "This browser shows notifications only for pages over https.";
  else if (Notification.permission === "denied") text.textContent = "Notifications of this page are blocked in the browser.";
  else text.textContent = on ? "On in this browser." : "Off in this browser.";
  button.onclick = async () => {
    const granted = !on && (await Notification.requestPermission()) === "granted";
    store(user, { on: granted, known: undefined }); // the states from now on count
    if (granted) window.calibrlNotifications.ask();
    drawSwitch(button, text, user);
  };
}

function drawWatch(button, text, user, job) {
  const { watched = [], on } = stored(user);
  const watches = watched.includes(job);
  button.hidden = !watches && watched.length >= MOST;
  button.textContent = watches ? "Stop watching" : "Watch";
  button.setAttribute("aria-pressed", watches);
  text.textContent = watches && !on ? "Turn on notifications under Settings." : "";
  button.onclick = () => {
    const others = (stored(user).watched ?? []).filter((id) => id !== job); // they change between two clicks
    store(user, { watched: watches ? others : [...others, job] });
    drawWatch(button, text, user, job);
  };
}

export default function ({ data: { user, role, job }, parentElement }) {
  window.calibrlNotifications ??= listen(user);
  const button = parentElement.querySelector("button");
  const text = parentElement.querySelector("span");
  if (role === "switch") drawSwitch(button, text, user);
  else if (role === "watch") drawWatch(button, text, user, job);
  else button.hidden = true;
}
