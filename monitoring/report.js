"use strict";
// Without this script the form stays hidden, and everything is visible.
const form = document.getElementById("filter");

function show() {
  const chosen = name => new Set([...form.querySelectorAll(`[name="${name}"]:checked`)].map(box => box.value));
  const labels = chosen("label"), outcomes = chosen("outcome");
  const parts = [...document.querySelectorAll("[data-label], [data-outcome]")];
  for (const part of parts) {
    const {label, outcome} = part.dataset;
    const wanted = (label === undefined || labels.has(label)) && (outcome === undefined || outcomes.has(outcome));
    part.toggleAttribute("hidden", !wanted);
  }
  const visible = part => !part.closest("[hidden]");
  const pictures = parts.filter(part => part.localName === "li"), glyphs = parts.filter(part => part.dataset.count);
  const count = some => some.reduce((sum, glyph) => sum + Number(glyph.dataset.count), 0).toLocaleString("en");
  for (const none of document.querySelectorAll(".none")) {
    const among = [...none.nextElementSibling.querySelectorAll("[data-outcome]")];
    none.hidden = among.some(visible);
  }
  document.getElementById("shown").textContent = `Shown: ${count(glyphs.filter(visible))} of ${count(glyphs)} captures, `
    + `${pictures.filter(visible).length} of ${pictures.length} images.`;
}

if (form) {
  form.hidden = false;
  form.addEventListener("change", show);
  show();
}
