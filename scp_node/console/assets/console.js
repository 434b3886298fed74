// What every page does: theme, language, times in the reader's zone, tokens for changes, refreshes without flicker.
"use strict";

const root = document.documentElement;

function remember(name, value) {
  document.cookie = `${name}=${value}; path=/; max-age=31536000; samesite=strict`;
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-theme-to], [data-language]");
  if (!button) return;
  if (button.dataset.themeTo) {
    remember("scp-node-theme", button.dataset.themeTo);
  } else {
    remember("scp-node-language", button.dataset.language);
  }
  location.reload();
});

// Each change carries the session's token; a foreign page cannot know it.
document.addEventListener("htmx:configRequest", (event) => {
  const token = document.body.dataset.csrf;
  if (token) event.detail.headers["X-CSRF-Token"] = token;
});

// A page that nobody looks at asks for nothing; an answer that changes nothing touches nothing.
const seen = new WeakMap();
document.addEventListener("htmx:beforeRequest", (event) => {
  if (document.hidden && event.detail.elt.hasAttribute("data-refresh")) event.preventDefault();
});
document.addEventListener("htmx:beforeSwap", (event) => {
  const { elt, xhr, target } = event.detail;
  if (xhr.status === 401) return;
  if (xhr.status >= 400) {
    announce(messageOf(xhr.responseText));
    return;
  }
  if (elt.hasAttribute("data-refresh")) {
    if (seen.get(target) === xhr.responseText) event.detail.shouldSwap = false;
    seen.set(target, xhr.responseText);
  }
});
document.addEventListener("htmx:sendError", () => announce(document.body.dataset.offline || "The console does not answer."));

function messageOf(text) {
  try {
    return JSON.parse(text).detail || text;
  } catch {
    return text.slice(0, 200);
  }
}

function announce(text) {
  let box = document.getElementById("announcement");
  if (!box) {
    box = document.createElement("div");
    box.id = "announcement";
    box.className = "message message-bad";
    box.setAttribute("role", "alert");
    document.querySelector("main").prepend(box);
  }
  box.textContent = text;
}

function localTimes(within) {
  const form = new Intl.DateTimeFormat(root.lang === "ko" ? "ko-KR" : "sv-SE", {
    year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false,
  });
  for (const element of within.querySelectorAll("time[datetime]")) {
    const moment = new Date(element.dateTime);
    const text = form.format(moment);
    if (element.textContent !== text) {
      element.textContent = text;
      element.title = moment.toISOString();
    }
  }
}
document.addEventListener("DOMContentLoaded", () => localTimes(document));
document.addEventListener("htmx:afterSwap", (event) => localTimes(event.detail.target));

// A filter is applied as soon as it is chosen.
document.addEventListener("change", (event) => {
  const form = event.target.closest("form[data-apply]");
  // A date that is being typed goes through the years 2, 20 and 202.
  if (event.target.matches("input[type=date]") && event.target.value && event.target.value < "1900") return;
  if (form && event.target.matches("select, input[type=date]")) form.requestSubmit();
});
document.addEventListener("submit", (event) => {
  // Empty filters stay out of the address.
  if (event.target.matches("form[data-apply]")) {
    for (const field of event.target.elements) if (field.name && !field.value) field.disabled = true;
  }
});

// After an action inside a part that refreshes itself, it is refreshed at once.
document.addEventListener("htmx:afterRequest", (event) => {
  if (event.detail.successful && event.detail.elt.dataset.then === "refresh") {
    const part = event.detail.elt.closest("[data-refresh]");
    if (part) htmx.ajax("GET", part.getAttribute("hx-get"), { source: part, target: part, swap: "morph:innerHTML" });
  }
});
