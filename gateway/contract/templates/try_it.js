(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("form-data").textContent);
  const form = document.getElementById("try");
  const outcome = document.getElementById("outcome");
  const facts = document.getElementById("facts");
  const answer = document.getElementById("answer");
  const LONGEST_SHOWN = 100000;

  const filled = (shape, value) =>
    shape.length === 0 ? value : Array.from({ length: shape[0] }, () => filled(shape.slice(1), value));

  const madeUp = () => {
    const row = Object.fromEntries(data.inputs.map((input) => [input.name, filled(input.shape, input.value)]));
    return JSON.stringify(data.batching ? { instances: [row] } : row);
  };

  const show = (good, headline, pairs, text) => {
    outcome.className = good ? "good" : "bad";
    outcome.textContent = headline;
    facts.replaceChildren(
      ...pairs.filter(([, value]) => value).flatMap(([name, value]) => {
        const term = document.createElement("dt");
        const description = document.createElement("dd");
        term.textContent = name;
        description.textContent = value;
        return [term, description];
      })
    );
    answer.textContent = text.length > LONGEST_SHOWN ? text.slice(0, LONGEST_SHOWN) + "\n…" : text;
    outcome.hidden = false;
    facts.hidden = facts.childElementCount === 0;
    answer.hidden = text === "";
  };

  // What is not Penstock's own answer (a proxy's between, say) is shown as it came.
  const parsed = (text) => {
    try {
      return Object(JSON.parse(text));
    } catch {
      return {};
    }
  };

  const showResponse = (response, text, milliseconds) => {
    const pairs = [
      ["version", response.headers.get("x-penstock-version")],
      ["request id", response.headers.get("x-request-id")],
    ];
    if (response.ok) {
      show(true, `Answered in ${milliseconds} ms`, pairs, text);
      return;
    }
    const status = parsed(text);
    const info = status.details?.find?.((detail) => detail.reason) ?? {};
    const { field, expected, received, limit, try: advice } = info.metadata ?? {};
    show(
      false,
      status.message ?? `HTTP ${response.status}`,
      [["error", [status.status, info.reason].filter(Boolean).join(", ") + ` (HTTP ${response.status})`],
        ["field", field], ["expected", expected], ["received", received], ["limit", limit], ["try", advice], ...pairs],
      // An answer is shown byte for byte: its integers may be beyond what a browser can read.
      status.message ? JSON.stringify(status, null, 2) : text
    );
  };

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button");
    const headers = { "content-type": "application/json" };
    const version = form.elements.version.value.trim();
    const user = form.elements.user.value.trim();
    if (version) headers["x-penstock-version"] = version;
    if (user) headers["x-user-id"] = user;
    const started = performance.now();
    button.disabled = true;
    try {
      const body = form.elements.body.value.trim() || (data.readable ? "" : madeUp());
      const response = await fetch(data.path, { method: "POST", headers, body });
      showResponse(response, await response.text(), Math.round(performance.now() - started));
    } catch (error) {
      show(false, `The gateway did not answer: ${error.message}`, [], "");
    } finally {
      button.disabled = false;
    }
  });
})();
