
const live = document.getElementById("live"), stale = document.getElementById("stale");
async function follow() {
  try {
    const response = await fetch("fragment", { cache: "no-store", signal: AbortSignal.timeout(10000) });
    if (!response.ok) throw new Error(response.status);
    live.innerHTML = await response.text();
    document.title = live.querySelector("[data-title]").dataset.title;
    stale.hidden = true;
  } catch { stale.hidden = false; }
  setTimeout(follow, 2000);
}
setTimeout(follow, 2000);
