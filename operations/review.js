"use strict";
const at = id => document.getElementById(id);
const REFRESH_MS = 5000;
let state = null, busy = false, ended = false, timer = 0;

async function request(path, sent) {
  if (busy || ended) return;
  busy = true;
  clearTimeout(timer);
  const before = state && state.item;
  let said = "", wrong = false;
  try {
    const response = await fetch(path, path === "state" ? {} : {
      method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(sent || {})});
    const answer = await response.json();
    if (response.ok) {
      if (path === "save") remember(sent.label);
      else if (path !== "state") at("last").hidden = true;
      state = answer;
      ended = path === "end";
      said = path === "skip" && before && !before.saved ? "Skipped. The image comes back later."
        : path === "dismiss" ? "Dismissed; a record was written."
        : path === "back" && state.item && state.item.saved ? `Saved as ${state.item.saved}. Choose another label to replace it.` : "";
    } else {
      said = answer.error;
      wrong = true;
      // Another tab, or a key pressed twice: the server has another image than the screen.
      if (response.status === 409) timer = setTimeout(() => request("state"), 0);
    }
  } catch {
    said = "No response: the review program has ended or cannot be reached.";
    wrong = true;
  }
  busy = false;
  if (path !== "state" || wrong) {
    at("said").textContent = said;
    at("said").className = wrong ? "wrong" : "";
  }
  if (state && (!wrong || !before)) show();
  if (!state || (!state.item && !ended)) timer = setTimeout(() => request("state"), REFRESH_MS);
}

function show() {
  const item = state.item;
  const problem = item && item.problem;
  at("left").textContent = ended ? "" : `about ${state.left} left, ${state.saved} saved`;
  at("who").textContent = `Reviewer: ${state.reviewer}`;
  document.title = item ? `Review: ${state.left} left` : "Review";
  const image = at("image");
  image.hidden = !item || Boolean(problem);
  if (image.hidden) image.removeAttribute("src");
  else if (!image.src.endsWith(item.id)) {
    image.src = `image/${item.id}`;
    look(false);
  }
  at("look").hidden = !item || !item.heat;
  if (at("look").hidden) look(false);
  at("empty").hidden = !image.hidden;
  at("empty").textContent = ended ? `Ended: ${state.saved} saved. Unsaved images are back in the queue. `
      + (state.saved ? `Next, stage the labels for training: ${state.next}` : "You can close this page.")
    : !item ? "Nothing to review: new images appear here automatically. Press End when you are done."
    : !problem ? "" : `${problem[0].toUpperCase()}${problem.slice(1)}. ${item.final ? "Dismiss the message, or skip it." : "Skip it; it comes back later."}`;
  const outcome = item ? item.outcome : "";
  at("outcome").className = outcome;
  at("outcome").textContent = outcome === state.neither ? "Neither: most probably none of the labels"
    : "Unsure: a label, but below the threshold";
  const bars = item ? item.probabilities.map(([name, value]) => {
    const row = document.createElement("li"), text = document.createElement("span");
    const number = document.createElement("output"), bar = document.createElement("div"), fill = document.createElement("div");
    text.textContent = name;
    number.textContent = value.toFixed(3);
    bar.className = "bar";
    fill.style.width = `${Math.max(0, Math.min(1, value)) * 100}%`;
    bar.append(fill);
    row.append(text, number, bar);
    return row;
  }) : [];
  at("bars").replaceChildren(...bars);
  at("model").hidden = !bars.length;
  at("facts").replaceChildren(...Object.entries(item ? item.facts : {}).filter(([, text]) => text).flatMap(([name, text]) => {
    const term = document.createElement("dt"), value = document.createElement("dd");
    term.textContent = name;
    value.textContent = text;
    return [term, value];
  }));
  if (!at("labels").children.length) {
    const names = [...state.labels, state.neither];
    at("labels").replaceChildren(...names.map((name, index) => {
      const button = document.createElement("button"), key = document.createElement("kbd");
      key.textContent = name === state.neither ? "n" : String(index + 1);
      button.className = "label";
      button.dataset.label = name;
      if (name === state.neither || index < 9) button.append(key, " ");
      button.append(name);
      button.addEventListener("click", () => label(name));
      return button;
    }));
  }
  for (const button of at("labels").children) {
    button.disabled = !item || Boolean(problem);
    const saved = Boolean(item) && item.saved === button.dataset.label;
    button.classList.toggle("saved", saved);
    button.setAttribute("aria-pressed", String(saved));
  }
  at("skip").disabled = !item;
  at("skip").querySelector("span").textContent = item && item.saved ? `Keep “${item.saved}”` : "Skip";
  at("dismiss").hidden = !item || !item.final;
  at("back").disabled = !state.back;
  at("end").disabled = ended;
}

// What was saved stands under a small copy of the picture that it is about: the next one is on the screen already.
function remember(label) {
  const canvas = at("last").firstElementChild, image = at("image"), scale = 56 / Math.max(image.naturalWidth, image.naturalHeight);
  canvas.width = Math.max(1, image.naturalWidth * scale);
  canvas.height = Math.max(1, image.naturalHeight * scale);
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  at("last").lastElementChild.textContent = `Saved as ${label}`;
  at("last").hidden = false;
}

function look(on) {
  const heat = at("heat");
  heat.hidden = !on;
  at("look").setAttribute("aria-pressed", String(on));
  if (on) heat.src = `heat/${state.item.id}`;
  else heat.removeAttribute("src");
}

function label(name) {
  if (state && state.item && !state.item.problem) request("save", {id: state.item.id, label: name});
}
const actions = {
  skip: () => state && state.item && request("skip", {id: state.item.id}),
  dismiss: () => state && state.item && state.item.final && request("dismiss", {id: state.item.id}),
  look: () => state && state.item && state.item.heat && look(at("heat").hidden),
  back: () => state && state.back && request("back"),
  end: () => request("end"),
};
for (const name in actions) at(name).addEventListener("click", actions[name]);
addEventListener("keydown", event => {
  if (event.repeat || event.ctrlKey || event.altKey || event.metaKey || !state) return;
  const key = event.key.toLowerCase(), number = /^[1-9]$/.test(key) ? Number(key) : 0;
  if (number && number <= state.labels.length) label(state.labels[number - 1]);
  else if (key === "n" || key === "0") label(state.neither);
  else ({s: actions.skip, d: actions.dismiss, h: actions.look, z: actions.back, q: actions.end}[key] || (() => {}))();
});
// Small pictures are enlarged: their pixels should stay squares.
at("image").addEventListener("load", () => at("image").classList.toggle("coarse", at("image").naturalWidth < 128));
at("image").addEventListener("error", () => {
  if (!at("image").hidden && at("image").hasAttribute("src")) {
    at("said").textContent = "The browser cannot show this image.";
    at("said").className = "wrong";
  }
});
request("state");
