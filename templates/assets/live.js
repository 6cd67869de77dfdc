// Live values: one stream for all of a page's figures, and parts of the page fetched anew from time to time. Without this
// script the pages show the same, as it was when they were loaded.
"use strict";
(() => {
  const REFRESH_MS = 10000;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const bytes = (n) => {
    let unit = 0;
    while (n >= 1024 && unit < units.length - 1) { n /= 1024; unit++; }
    const digits = unit === 0 ? 0 : n < 10 ? 2 : n < 100 ? 1 : 0;
    return n.toFixed(digits) + " " + units[unit];
  };
  const count = (n) => Math.round(n).toLocaleString("en-US");
  const duration = (ms) => {
    if (ms === 0) return "0 ms";
    if (ms < 1) return (ms * 1000).toFixed(0) + " µs";
    if (ms < 10) return ms.toFixed(1) + " ms";
    if (ms < 1000) return ms.toFixed(0) + " ms";
    if (ms < 60000) return (ms / 1000).toFixed(1) + " s";
    const minutes = Math.floor(ms / 60000), hours = Math.floor(minutes / 60) % 24, days = Math.floor(minutes / 1440);
    if (days) return `${days} d ${hours} h`;
    if (hours) return `${hours} h ${minutes % 60} min`;
    return `${minutes} min ${Math.floor(ms / 1000) % 60} s`;
  };
  const show = {
    bytes, count, duration,
    byte_rate: (n) => bytes(n) + "/s",
    rate: (n) => (n === 0 ? "0" : n < 10 ? n.toFixed(1) : count(n)) + "/s",
    cpu: (n) => (n * 100).toFixed(1) + " %",
  };

  const valueOf = (name, live) => {
    const at = name.indexOf(":");
    if (at < 0) return name in live.rates ? live.rates[name] : live[name];
    const kind = name.slice(0, at), of = name.slice(at + 1);
    if (kind === "group") return live.groups ? live.groups[of] : undefined;
    const rates = live.topics[of] || [0, 0, 0];
    return rates[{ "topic-in": 0, "topic-out": 1, "topic-messages": 2 }[kind]];
  };
  const pulse = document.getElementById("pulse");
  const say = (on) => {
    pulse.classList.toggle("on", on);
    pulse.lastElementChild.textContent = on ? "live" : "not live";
  };
  const update = (live) => {
    for (const place of document.querySelectorAll("[data-live]")) {
      const value = valueOf(place.dataset.live, live);
      if (typeof value === "number") place.textContent = show[place.dataset.unit](value);
    }
  };

  let stream = null;
  const look = () => {
    const wanted = !document.hidden && document.querySelector("[data-live]");
    if (wanted) pulse.hidden = false;
    if (wanted && !stream) {
      stream = new EventSource("/api/live");
      stream.onmessage = (event) => { say(true); update(JSON.parse(event.data)); };
      stream.onerror = () => say(false);
    } else if (!wanted && stream) {
      stream.close(); stream = null; say(false);
    }
  };
  document.addEventListener("visibilitychange", look);
  look();

  const refresh = async () => {
    const parts = [...document.querySelectorAll("[data-refresh]")];
    if (document.hidden || parts.length === 0) return;
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } }).catch(() => null);
    if (!answer || !answer.ok) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of parts) {
      const other = fresh.querySelector(`[data-refresh="${part.dataset.refresh}"]`);
      // What somebody is reading or has marked stays.
      const marked = getSelection();
      const busy = part.contains(document.activeElement) || (marked && !marked.isCollapsed && part.contains(marked.anchorNode));
      if (other && !busy) part.replaceWith(document.importNode(other, true));
    }
  };
  setInterval(refresh, REFRESH_MS);
})();
