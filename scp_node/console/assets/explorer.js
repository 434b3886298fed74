// The explorer: sends files one after another, shows what comes back, keeps it in this page only.
"use strict";

(() => {
  const find = (id) => document.getElementById(id);
  const data = JSON.parse(find("explorer-data").textContent);
  const texts = data.texts;
  const PICTURES_KEPT = 60;
  const items = [];
  const state = { selected: -1, view: "compare", table: false, busy: false, before: 40, drawing: false };

  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "text") element.textContent = value;
      else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children);
    return element;
  };
  const headers = () => (document.body.dataset.csrf ? { "X-CSRF-Token": document.body.dataset.csrf } : {});
  const say = (text) => { find("trouble").textContent = text; find("trouble").hidden = !text; };

  // What the node says in English, in the language of this page.
  const sentences = data.sentences.map(([pattern, words]) => [new RegExp(`^(?:${pattern})$`, "s"), words]);
  function inWords(text) {
    for (const [pattern, words] of sentences) {
      const found = pattern.exec(text);
      if (!found) continue;
      let group = 0;
      return words.replace(/\{\}/g, () => inWords(found[++group]));
    }
    return text;
  }

  // Probability and threshold with as many decimals as it takes not to contradict the verdict.
  function percents(one) {
    let said, mark;
    for (let decimals = 1; decimals <= 13; decimals++) {
      said = (one.probability * 100).toFixed(decimals);
      mark = Number((one.threshold * 100).toFixed(Math.max(4, decimals)));
      if (Number(said) >= mark === one.is_positive) break;
    }
    return [`${said} %`, `${mark} %`];
  }
  const probability = (one) => percents(one)[0];

  // --- files in -------------------------------------------------------------------------------------------------------

  function add(files) {
    say("");
    for (const file of files) {
      items.push({ name: file.name, file, status: "waiting", progress: 0, result: null });
    }
    if (!items.length) return;
    if (state.selected < 0) state.selected = 0;
    arrange();
    next();
  }

  async function next() {
    if (state.busy) return;
    const item = items.find((one) => one.status === "waiting");
    if (!item) return;
    state.busy = true;
    if (item.file.size > data.maximum) finish(item, problem(item.name, texts.too_large));
    else await send(item);
    state.busy = false;
    arrange();
    next();
  }

  function send(item) {
    return new Promise((resolve) => {
      const request = new XMLHttpRequest();
      const asked = item.name;
      let read = 0;
      let target = item;
      let isComplete = false;
      const take = (line) => {
        if (!line) return;
        const event = JSON.parse(line);
        if (event.event === "loading") status(item, "loading");
        else if (event.event === "judging") {
          // A ZIP file becomes as many lines as it has files.
          if (event.number > 1) {
            // After the one before it, also where that has been cleared away.
            const index = Math.max(items.indexOf(target), items.indexOf(item)) + 1;
            target = { name: event.name, file: null, status: "judging", progress: 0, result: null };
            items.splice(index, 0, target);
            if (state.selected >= index) state.selected++;
            else if (state.selected < 0) state.selected = index;
          } else if (event.is_entry) {
            item.name = event.name;
            item.file = null;
          }
          status(target, "judging");
        } else if (event.event === "judged") finish(target, event);
        else if (event.event === "failed") finish(target, problem(target.name, event.detail));
        if (event.event === "end" || event.event === "failed") isComplete = true;
      };
      // The answer broke off: what was being judged is not, and what would have come after it nobody knows.
      const lose = () => {
        if (target.result) say(`${asked}: ${texts.offline}`);
        else finish(target, problem(target.name, texts.offline));
      };
      const readOn = () => {
        const lines = request.responseText.slice(read).split("\n");
        for (const line of lines.slice(0, -1)) {
          read += line.length + 1;
          take(line);
        }
      };
      request.open("POST", "/api/v1/analyze?pictures=true");
      request.setRequestHeader("Accept", "application/x-ndjson");
      for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
      request.upload.onprogress = (event) => {
        item.progress = event.lengthComputable ? Math.round((100 * event.loaded) / event.total) : 0;
        status(item, "uploading");
      };
      request.onprogress = () => { if (request.status === 200) readOn(); };
      request.onload = () => {
        if (request.status === 200) {
          readOn();
          if (!isComplete) lose();
        } else if (request.status === 401) location.reload();
        else finish(item, problem(item.name, detailOf(request.responseText)));
        resolve();
      };
      request.onerror = () => { lose(); resolve(); };
      const form = new FormData();
      form.append("file", item.file, item.name);
      status(item, "uploading");
      request.send(form);
    });
  }

  async function open(instance) {
    const item = { name: `#${instance}`, file: null, status: "loading", progress: 0, result: null, instance };
    items.push(item);
    state.selected = 0;
    arrange();
    try {
      const answer = await fetch(`/api/v1/instances/${instance}/analyze?pictures=true`, { method: "POST", headers: headers() });
      const text = await answer.text();
      if (answer.status === 401) location.reload();
      finish(item, answer.ok ? JSON.parse(text) : problem(item.name, detailOf(text)));
    } catch {
      finish(item, problem(item.name, texts.offline));
    }
    arrange();
  }

  function detailOf(text) {
    try { return JSON.parse(text).detail; } catch { return text.slice(0, 200) || texts.offline; }
  }

  // Failure Reason (0008,1197) of the Failed SOP Sequence (0008,1198), see PS3.18 I.2.2; other answers have a sentence.
  function refusalOf(text) {
    try {
      const reason = JSON.parse(text)["00081198"].Value[0]["00081197"].Value[0];
      return texts.refused.replace("{status}", reason.toString(16).toUpperCase().padStart(4, "0"));
    } catch {
      return detailOf(text);
    }
  }

  function problem(name, detail) {
    return { name, outcome: "failed", reason: "failed", detail, information: {}, window: null, notes: [], predictions: [], picture: null };
  }

  function status(item, value) {
    item.status = value;
    arrange();
  }

  function finish(item, result) {
    item.status = "judged";
    item.result = result;
    const withPictures = items.filter((one) => one.result && one.result.picture);
    while (withPictures.length > PICTURES_KEPT) {
      const oldest = withPictures.shift();
      if (oldest === items[state.selected]) continue;
      oldest.result.picture = null;
      oldest.prepared = null;
    }
    arrange();
  }

  // --- the page -------------------------------------------------------------------------------------------------------

  function arrange() {
    const any = items.length > 0;
    find("explorer").hidden = !any;
    find("keys").hidden = !any;
    find("drop").classList.toggle("drop-small", any);
    find("side").hidden = items.length < 2;
    find("explorer").classList.toggle("has-list", items.length > 1);
    list();
    const item = items[state.selected];
    const table = state.table && items.length > 1;
    find("batch").hidden = !table;
    find("table").setAttribute("aria-pressed", String(table));
    if (table) batch();
    const judged = item && item.status === "judged" ? item.result : null;
    find("working").hidden = table || !item || Boolean(judged);
    if (item && !judged) working(item);
    const without = !table && judged && judged.outcome !== "analysed";
    find("verdictless").hidden = !without;
    if (without) {
      find("verdictless").replaceChildren(make("strong", { text: texts.reasons[judged.reason] || texts.reasons.failed }), make("div", { class: "quiet", text: inWords(judged.detail) }));
    }
    const visible = !table && judged && Object.keys(judged.information).length > 0;
    find("shown").hidden = !visible;
    if (visible) show(item);
  }

  function words(item) {
    if (item.status !== "judged") return item.status === "uploading" ? `${texts.uploading} ${item.progress} %` : texts[item.status] || item.status;
    if (item.result.outcome !== "analysed") return texts.not_judged;
    const said = item.result.predictions;
    return texts.agreement.replace("{positive}", said.filter((one) => one.is_positive).length).replace("{all}", said.length);
  }

  function list() {
    const rows = find("list");
    while (rows.children.length > items.length) rows.lastChild.remove();
    items.forEach((item, index) => {
      let row = rows.children[index];
      if (!row) {
        row = make("li", {}, make("button", { type: "button" }, make("span", { class: "file" }), make("span", { class: "state" })));
        row.firstChild.addEventListener("click", () => select([...rows.children].indexOf(row)));
        rows.append(row);
      }
      const [file, note] = row.firstChild.children;
      if (file.textContent !== item.name) { file.textContent = item.name; file.title = item.name; }
      const text = words(item);
      if (note.textContent !== text) note.textContent = text;
      if (index === state.selected && !state.table) row.firstChild.setAttribute("aria-current", "true");
      else row.firstChild.removeAttribute("aria-current");
    });
  }

  function working(item) {
    const text = item.status === "uploading" ? `${texts.uploading} ${item.progress} %` : texts[item.status] || "";
    if (find("working-text").textContent !== `${item.name}: ${text}`) find("working-text").textContent = `${item.name}: ${text}`;
    if (item.status === "uploading") find("progress").value = item.progress;
    else find("progress").removeAttribute("value");
  }

  function select(index) {
    state.selected = Math.max(0, Math.min(items.length - 1, index));
    state.table = false;
    arrange();
  }

  // --- one radiograph -------------------------------------------------------------------------------------------------

  async function prepare(item) {
    const { picture, predictions } = item.result;
    const { columns, rows } = picture;
    const radiograph = { columns, rows, values: Blend.greys(await Blend.image(picture.png), columns, rows) };
    const maps = {};
    for (const one of predictions) {
      maps[one.model] = one.has_evidence && one.saliency ? Blend.greys(await Blend.image(one.saliency), columns, rows) : null;
    }
    item.prepared = { radiograph, maps };
  }

  function show(item) {
    const result = item.result;
    facts(result);
    for (const id of ["alpha", "colormap"]) find(id).disabled = !result.predictions.length;
    find("objects").disabled = !item.file || result.outcome !== "analysed";
    if (find("file-it")) find("file-it").disabled = !item.file || result.information.format !== "DICOM";
    find("downloads-note").textContent = item.file ? item.note || "" : texts.no_zip;
    if (item.drawn === `${state.view}` && find("panels").dataset.of === String(items.indexOf(item))) return;
    find("panels").dataset.of = String(items.indexOf(item));
    item.drawn = `${state.view}`;
    panels(item);
  }

  async function panels(item) {
    const { predictions, picture } = item.result;
    const shown = predictions.filter((one) => state.view === "compare" || one.model === state.view);
    const figures = [figure(null), ...shown.map(figure)];
    if (!picture) {
      find("panels").replaceChildren(make("p", { class: "quiet", text: predictions.length ? texts.no_picture : "" }), ...figures.slice(1));
      for (const one of figures) one.querySelector(".view").remove();
      return;
    }
    for (const one of figures) {
      const canvas = one.querySelector("canvas");
      canvas.width = picture.columns;
      canvas.height = picture.rows;
    }
    find("panels").replaceChildren(...figures);
    if (!item.prepared) await prepare(item);
    if (items[state.selected] === item) draw();
  }

  function figure(one) {
    const canvas = make("canvas", { "data-model": one ? one.model : "", role: "img", "aria-label": one ? `${texts.original} + Grad-CAM, ${one.title}` : texts.original });
    const view = make("button", { class: "view", type: "button", "aria-label": one ? one.title : texts.original }, canvas);
    view.addEventListener("click", () => enlarge(canvas, one ? one.title : texts.original));
    if (!one) {
      return make("figure", { class: "panel" }, view, make("figcaption", {}, make("div", { class: "title", text: texts.original })));
    }
    const verdict = make("span", { class: `verdict${one.is_positive ? " verdict-positive" : ""}`, text: one.is_positive ? texts.positive : texts.negative });
    const mark = `${one.is_threshold_overridden ? texts.site : texts.threshold} ${percents(one)[1]}`;
    return make("figure", { class: "panel", "data-prediction": one.model }, view, make("figcaption", {},
      make("div", { class: "line-1st" }, make("span", { class: "title", text: one.title }), make("span", { class: "quiet small", text: `${texts.version} ${one.version}` })),
      make("div", { class: "line-1st" }, make("span", { class: "probability", text: probability(one) }), verdict),
      bar(one, `${texts.probability} ${probability(one)}, ${mark}`),
      make("div", { class: "line-1st small quiet" }, make("span", { text: mark }), one.has_evidence ? "" : make("span", { text: texts.no_evidence })),
    ));
  }

  function bar(one, label) {
    const space = "http://www.w3.org/2000/svg";
    const part = (tag, attributes) => {
      const element = document.createElementNS(space, tag);
      for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
      return element;
    };
    const svg = part("svg", { class: "bar", role: "img", "aria-label": label, width: "100%", height: 12 });
    const mark = `${(one.threshold * 100).toFixed(2)}%`;
    svg.append(
      part("rect", { class: "bar-track", x: 0, y: 2, width: "100%", height: 8, rx: 3 }),
      part("rect", { class: one.is_positive ? "bar-positive" : "bar-negative", x: 0, y: 2, width: `${(one.probability * 100).toFixed(2)}%`, height: 8, rx: 3 }),
      part("line", { class: "bar-mark", x1: mark, x2: mark, y1: 0, y2: 12 }),
    );
    return svg;
  }

  function draw() {
    state.drawing = false;
    const item = items[state.selected];
    if (!item || !item.prepared) return;
    const alpha = Number(find("alpha").value) / 100;
    const colormap = find("colormap").value;
    for (const canvas of find("panels").querySelectorAll("canvas")) {
      const map = canvas.dataset.model ? item.prepared.maps[canvas.dataset.model] : null;
      Blend.draw(canvas, item.prepared.radiograph, map, colormap, alpha);
      canvas.dataset.drawn = `${colormap} ${alpha}`;
    }
    Blend.scale(find("scale"), colormap, alpha);
  }

  function redraw() {
    find("alpha-out").textContent = `${find("alpha").value} %`;
    if (state.drawing) return;
    state.drawing = true;
    requestAnimationFrame(draw);
  }

  function enlarge(canvas, title) {
    const target = find("large").querySelector("canvas");
    target.width = canvas.width;
    target.height = canvas.height;
    target.getContext("2d").drawImage(canvas, 0, 0);
    find("large-title").textContent = title;
    find("large").showModal();
  }

  function size(bytes) {
    const units = ["B", "kB", "MB", "GB"];
    let power = 0;
    while (bytes >= 1000 && power < 3) { bytes /= 1000; power++; }
    return `${power ? bytes.toFixed(1) : bytes} ${units[power]}`;
  }

  function facts(result) {
    const labels = texts.labels;
    const { information: known, window: used } = result;
    const rows = [];
    const put = (label, value) => { if (value !== null && value !== undefined && value !== "") rows.push([label, value]); };
    put(labels.eligibility, result.outcome === "analysed" ? labels.eligible : `${texts.reasons[result.reason] || ""} ${inWords(result.detail)}`);
    put(labels.notes, result.notes.map(inWords).join("; "));
    put(labels.format, known.format);
    put(labels.size_bytes, size(known.size_bytes));
    if (known.columns) put(labels.dimensions, `${known.columns} × ${known.rows}`);
    for (const name of ["modality", "sop_class", "transfer_syntax", "body_part", "view_position", "intent", "photometric_interpretation", "presentation_lut_shape", "bits_stored", "rescale"]) put(labels[name], known[name]);
    if (known.format === "DICOM") {
      put(labels.window_found, (known.window_found || []).join(", ") || texts.none);
      put(labels.voi_lut_found, known.voi_lut_found ? texts.yes : texts.no);
    }
    if (used) {
      const numbers = used.center === null ? "" : ` ${Number(used.center.toFixed(1))} / ${Number(used.width.toFixed(1))} ${used.function}`;
      put(labels.window_used, `${texts.windows[used.source] || used.source}${numbers}`);
      put(labels.inverted, used.is_inverted ? texts.yes : texts.no);
    }
    put(labels.preprocessing, [...new Set(result.predictions.map((one) => one.preprocessing))].join("; "));
    put(labels.sop_instance_uid, known.sop_instance_uid);
    if (result.duration_s) put(labels.duration, `${result.duration_s.toFixed(2)} s`);
    find("facts").replaceChildren(...rows.flatMap(([label, value]) => [make("dt", { text: label }), make("dd", { text: value })]));
  }

  // --- a batch --------------------------------------------------------------------------------------------------------

  function models() {
    return [...document.querySelectorAll("#views [data-view]")].map((one) => one.dataset.view).filter((view) => view !== "compare");
  }

  function batch() {
    const names = models();
    find("batch-head").replaceChildren(make("tr", {}, make("th", { text: texts.file }), make("th", { text: texts.outcome }), ...names.map((name) => make("th", { class: "number", text: name }))));
    find("batch-body").replaceChildren(...items.map((item, index) => {
      const open = make("button", { type: "button", class: "plain", text: item.name });
      open.addEventListener("click", () => select(index));
      const result = item.result;
      const outcome = !result ? words(item) : result.outcome === "analysed" ? words(item) : texts.reasons[result.reason] || inWords(result.detail);
      return make("tr", {}, make("td", {}, open), make("td", { text: outcome }), ...names.map((name) => {
        const one = result && result.predictions.find((each) => each.model === name);
        return make("td", { class: "number" }, one ? make("span", { class: one.is_positive ? "verdict verdict-positive" : "verdict", text: probability(one) }) : "");
      }));
    }));
  }

  function csv() {
    const names = models();
    // What a spreadsheet would take for a formula is made text.
    const cell = (value) => {
      let text = value === null || value === undefined ? "" : String(value);
      if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
      return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
    };
    const lines = [["file", "outcome", "reason", "detail", ...names.flatMap((name) => [`${name}_probability`, `${name}_threshold`, `${name}_is_positive`]), "duration_s"]];
    for (const { name, result } of items) {
      if (!result) continue;
      lines.push([name, result.outcome, result.reason, result.detail, ...names.flatMap((model) => {
        const one = result.predictions.find((each) => each.model === model);
        return one ? [one.probability, one.threshold, one.is_positive] : ["", "", ""];
      }), result.duration_s]);
    }
    save(new Blob(["\ufeff", lines.map((line) => line.map(cell).join(",")).join("\r\n"), "\r\n"], { type: "text/csv" }), "scp-node-results.csv");
  }

  function save(blob, name) {
    const address = URL.createObjectURL(blob);
    const link = make("a", { href: address, download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(address), 60000);
  }

  async function ask(item, button, work) {
    button.disabled = true;
    item.note = texts.preparing;
    find("downloads-note").textContent = item.note;
    try {
      item.note = await work();
    } catch {
      item.note = texts.offline;
    }
    button.disabled = false;
    if (items[state.selected] === item) find("downloads-note").textContent = inWords(item.note);
  }

  find("objects").addEventListener("click", () => {
    const item = items[state.selected];
    ask(item, find("objects"), async () => {
      const form = new FormData();
      form.append("file", item.file, item.name);
      const answer = await fetch("/api/v1/analyze/objects", { method: "POST", headers: headers(), body: form });
      if (answer.status === 401) location.reload();
      if (!answer.ok) return detailOf(await answer.text());
      save(await answer.blob(), `${item.name.replace(/\.[^.]*$/, "")}-results.zip`);
      return "";
    });
  });
  if (find("file-it")) find("file-it").addEventListener("click", () => {
    const item = items[state.selected];
    ask(item, find("file-it"), async () => {
      const boundary = `scp-node-${crypto.getRandomValues(new Uint32Array(4)).join("")}`;
      const body = new Blob([`--${boundary}\r\nContent-Type: application/dicom\r\n\r\n`, item.file, `\r\n--${boundary}--\r\n`]);
      const type = `multipart/related; type="application/dicom"; boundary=${boundary}`;
      const answer = await fetch("/dicom-web/studies", { method: "POST", headers: { ...headers(), "Content-Type": type }, body });
      if (answer.status === 401) location.reload();
      return answer.ok ? texts.filed : refusalOf(await answer.text());
    });
  });

  // --- hands ----------------------------------------------------------------------------------------------------------

  find("choose").addEventListener("click", () => find("files").click());
  find("files").addEventListener("change", (event) => { add(event.target.files); event.target.value = ""; });
  find("drop").addEventListener("click", (event) => { if (!event.target.closest("button")) find("files").click(); });
  document.addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("is-dragged"); });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("is-dragged"); });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("is-dragged");
    // A folder comes as a file that cannot be read.
    const dropped = [...event.dataTransfer.items].filter((one) => one.kind === "file");
    const files = dropped.filter((one) => !one.webkitGetAsEntry()?.isDirectory).map((one) => one.getAsFile());
    add(files);
    if (files.length < dropped.length) say(texts.folder);
  });
  find("alpha").addEventListener("input", redraw);
  find("colormap").addEventListener("change", redraw);
  find("csv").addEventListener("click", csv);
  find("table").addEventListener("click", () => { state.table = !state.table; arrange(); });
  find("clear").addEventListener("click", () => {
    items.splice(0, items.length, ...items.filter((one) => one.status !== "judged" && one.status !== "waiting"));
    state.selected = items.length ? 0 : -1;
    state.table = false;
    find("panels").replaceChildren();
    find("panels").dataset.of = "";
    arrange();
  });
  find("large-close").addEventListener("click", () => find("large").close());
  find("large").addEventListener("click", (event) => { if (event.target === find("large")) find("large").close(); });

  function look(view) {
    state.view = view;
    for (const button of find("views").children) button.setAttribute("aria-pressed", String(button.dataset.view === view));
    arrange();
  }
  find("views").addEventListener("click", (event) => { if (event.target.dataset.view) look(event.target.dataset.view); });
  const tabs = [...document.querySelectorAll("[role=tab]")];
  function tab(chosen) {
    for (const one of tabs) {
      one.setAttribute("aria-selected", String(one === chosen));
      one.tabIndex = one === chosen ? 0 : -1;
      find(one.getAttribute("aria-controls")).hidden = one !== chosen;
    }
  }
  tabs.forEach((one, index) => {
    one.addEventListener("click", () => tab(one));
    one.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      event.stopPropagation();
      const other = tabs[(index + step + tabs.length) % tabs.length];
      tab(other);
      other.focus();
    });
  });
  function overlay(value) {
    find("alpha").value = Math.max(0, Math.min(100, value));
    redraw();
  }
  document.addEventListener("keydown", (event) => {
    if (!items.length || event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea, dialog")) return;
    const alpha = Number(find("alpha").value);
    const views = ["compare", ...models()];
    if (event.key === "ArrowRight") select(state.selected + 1);
    else if (event.key === "ArrowLeft") select(state.selected - 1);
    else if (event.key === "[") overlay(alpha - 10);
    else if (event.key === "]") overlay(alpha + 10);
    else if (event.key.toLowerCase() === "o") {
      if (alpha) state.before = alpha;
      overlay(alpha ? 0 : state.before);
    } else if (/^[0-9]$/.test(event.key) && views[Number(event.key)]) look(views[Number(event.key)]);
    else return;
    event.preventDefault();
  });

  Blend.load(data.colormaps).then(() => { redraw(); if (data.instance) open(data.instance); }, () => say(texts.offline));
})();
