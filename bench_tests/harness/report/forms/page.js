// What makes the page more than paper: it draws the figures, opens records, sorts, filters and downloads.
// All of it comes from one block of data; without this script the page still reads from top to bottom.
"use strict";

(async () => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const element = (tag, text) => Object.assign(document.createElement(tag), { textContent: text });

  // So that the page does not grow under its reader while the figures are drawn.
  for (const plot of all(".plot")) plot.style.minHeight = `${Number(plot.dataset.height) + 60}px`;

  const { figures, tables, records, choices } = await unpacked(document.getElementById("page-data").textContent);

  async function unpacked(base64) {
    const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    return JSON.parse(await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text());
  }

  function download(name, content, type) {
    const address = URL.createObjectURL(new Blob([content], { type }));
    Object.assign(document.createElement("a"), { href: address, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
  }

  // Records: their number is the address, so that the back button closes what a link opened.
  const dialog = document.getElementById("page-record");
  const place = /^#record-(\d+)$/;
  let opened = false; // whether an entry of this page's history is to be taken back on closing

  function rowsInto(body, pairs) {
    body.replaceChildren(
      ...pairs.map(([name, value]) => {
        const row = document.createElement("tr");
        row.append(Object.assign(element("th", name), { scope: "row" }), element("td", String(value)));
        return row;
      }),
    );
  }

  function showRecord() {
    const number = Number(place.exec(location.hash)?.[1] ?? NaN);
    if (!(number < records.line.length)) {
      if (dialog.open) dialog.close();
      return;
    }
    const run = records.runs[records.run[number]];
    document.getElementById("page-record-title").textContent = records.columns.case[number];
    const origin = { Record: number, File: run.file, Line: records.line[number], Measured: run.when, Commit: run.commit };
    rowsInto(
      document.getElementById("page-record-origin"),
      Object.entries({ ...origin, Machine: run.machine, Command: run.command }).filter(([, value]) => value !== ""),
    );
    const values = Object.entries(records.columns).map(([name, column]) => [name, column[number]]);
    rowsInto(document.getElementById("page-record-values"), values.filter(([, value]) => value !== null));
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
  }

  function openRecord(number) {
    history.pushState(null, "", `#record-${number}`); // unlike a followed link, it does not scroll
    opened = true;
    showRecord();
  }

  dialog.addEventListener("close", () => {
    if (!place.test(location.hash)) return;
    if (opened) history.back();
    else history.replaceState(null, "", location.pathname + location.search);
    opened = false;
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog || event.target.closest(".close")) dialog.close();
  });
  window.addEventListener("popstate", showRecord);
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.('a[href^="#record-"]');
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    openRecord(Number(place.exec(link.hash)[1]));
  });
  showRecord();

  // Tables: sorting takes the unrounded values, in which an empty one is the last either way.
  function sortable(box, columns) {
    const body = box.querySelector("tbody");
    const rows = [...body.rows];
    const headings = all("thead th", box);
    headings.forEach((heading, column) => {
      const button = Object.assign(element("button", heading.textContent), { type: "button" });
      heading.replaceChildren(button);
      button.addEventListener("click", () => {
        const orders = heading.classList.contains("t") ? ["ascending", "descending"] : ["descending", "ascending"];
        const order = [...orders, null][orders.indexOf(heading.getAttribute("aria-sort")) + 1];
        headings.forEach((one) => one.removeAttribute("aria-sort"));
        const sorted = rows.map((_, at) => at);
        if (order) {
          heading.setAttribute("aria-sort", order);
          const values = columns[column];
          sorted.sort((a, b) => compared(values[a], values[b], order === "ascending" ? 1 : -1));
        }
        body.append(...sorted.map((at) => rows[at]));
      });
    });
  }

  function downloads(box, table) {
    box.querySelector(".tools").hidden = false;
    for (const button of all("[data-table-as]", box)) {
      button.addEventListener("click", () => {
        if (button.dataset.tableAs === "csv") download(`${table.name}.csv`, csv(table), "text/csv");
        else download(`${table.name}.json`, JSON.stringify(objects(table), null, 1), "application/json");
      });
    }
  }

  function compared(a, b, direction) {
    if (a === null || b === null) return (a === null) - (b === null);
    if (typeof a === "number" && typeof b === "number") return direction * (a - b);
    return direction * String(a).localeCompare(String(b), "en", { numeric: true });
  }

  function objects({ columns, values }) {
    return (values[0] ?? []).map((_, row) => Object.fromEntries(columns.map((name, at) => [name, values[at][row]])));
  }

  function csv({ columns, values }) {
    // A spreadsheet reads text that begins so as a formula.
    const text = (value) => (typeof value === "string" && /^[=+\-@\t\r\n＝＋－＠]/.test(value) ? `'${value}` : String(value));
    const quoted = (value) => (/[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
    const lines = [columns, ...(values[0] ?? []).map((_, row) => values.map((column) => column[row] ?? ""))];
    return lines.map((line) => `${line.map((value) => quoted(text(value))).join(",")}\r\n`).join("");
  }

  for (const box of all("[data-table]")) {
    const table = tables[box.dataset.table];
    sortable(box, table.values);
    downloads(box, table);
  }
  const { columns, line } = records;
  const files = records.run.map((run) => records.runs[run].file);
  const when = records.run.map((run) => records.runs[run].when);
  const list = document.querySelector("#records .table");
  sortable(list, [line.map((_, at) => at), columns.case ?? [], files, line, when]);
  downloads(list, {
    name: "records", columns: ["run", "line", ...Object.keys(columns)], values: [files, line, ...Object.values(columns)],
  });

  // Filters: a row is hidden where its record, or its own field, has a value that is not chosen.
  const filters = document.getElementById("page-filters");
  const chosen = {};

  const isShown = (row) => Object.entries(chosen).every(([field, values]) => !(field in row) || values.has(row[field]));

  function choose() {
    for (const fieldset of all("fieldset", filters)) {
      const { field } = fieldset.dataset;
      chosen[field] = new Set(all("input:checked", fieldset).map((input) => choices[field][input.value]));
    }
    const fields = Object.keys(chosen);
    const shown = records.line.map((_, at) => isShown(Object.fromEntries(fields.map((name) => [name, records.columns[name][at]]))));
    for (const row of all("tr[data-record]")) row.hidden = !shown[row.dataset.record];
    const count = shown.filter(Boolean).length;
    const [some, total] = [count, shown.length].map((number) => number.toLocaleString("en"));
    document.getElementById("page-shown").textContent = `${some} of ${total} records shown`;
    filters.classList.toggle("active", count < shown.length);
    for (const plot of drawn.keys()) refresh(plot);
  }

  async function refresh(plot) {
    const { view, sources } = (await drawn.get(plot)) ?? {};
    if (!view) return;
    const left = sources.map(([name, rows]) => [name, rows.filter(isShown)]);
    // Vega cannot draw a legend of nothing: the picture gives way to words, which the style has.
    const nothing = left.length > 0 && left.every(([, rows]) => rows.length === 0);
    plot.classList.toggle("empty", nothing);
    if (nothing) return;
    for (const [name, rows] of left) view.data(name, rows);
    await view.runAsync();
  }

  // Figures: the visible ones first, the others one after another when there is nothing else to do.
  const drawn = new Map(); // plot to the promise of its view
  const QUIET = 1; // Vega's level of errors: a scale without rows, where nothing is chosen, is no news

  function draw(plot) {
    if (!drawn.has(plot)) drawn.set(plot, drawing(plot));
    return drawn.get(plot);
  }

  async function drawing(plot) {
    const { spec } = figures[plot.dataset.figure];
    try {
      const { view, vgSpec } = await vegaEmbed(plot, spec, {
        renderer: "svg", actions: false, ast: true, defaultStyle: false, logLevel: QUIET,
        tooltip: { theme: "report", disableDefaultStyle: true },
      });
      view.addEventListener("click", (_, item) => {
        // A line's or a band's own datum is but the first of its rows.
        if (item?.datum?.record !== undefined && !["line", "area", "group"].includes(item.mark.marktype)) {
          openRecord(item.datum.record);
        }
      });
      plot.style.minHeight = "";
      const svg = plot.querySelector("svg");
      svg.style.minWidth = `${0.75 * Number(svg.getAttribute("width"))}px`; // smaller, its letters cannot be read
      plot.parentElement.querySelector(".tools").hidden = false;
      // The rows as Vega has read them: dates are dates by now.
      const sources = vgSpec.data
        .filter(({ name }) => spec.datasets?.[name]?.some((row) => Object.keys(choices).some((field) => field in row)))
        .map(({ name }) => [name, [...view.data(name)]]);
      if (filters?.classList.contains("active")) setTimeout(refresh, 0, plot);
      return { view, sources };
    } catch (error) {
      console.error(error);
      plot.replaceChildren(element("p", plot.getAttribute("aria-label")));
      return null;
    }
  }

  async function save(button) {
    const figure = button.closest("figure");
    const plot = figure.querySelector(".plot");
    const { view } = await draw(plot);
    const { name } = figures[plot.dataset.figure];
    if (button.dataset.picture === "svg") return download(`${name}.svg`, await view.toSVG(), "image/svg+xml");
    const picture = await view.toCanvas(2);
    const context = picture.getContext("2d");
    context.globalCompositeOperation = "destination-over"; // white paper under the black text of a detached canvas
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = "white";
    context.fillRect(0, 0, picture.width, picture.height);
    picture.toBlob((content) => download(`${name}.png`, content, "image/png"));
  }

  if (filters) {
    const form = filters.querySelector("form");
    form.addEventListener("change", choose);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(choose)); // the boxes change after the event
    for (const button of all("[data-set]", form)) {
      button.addEventListener("click", () => {
        for (const input of all("input", button.closest("fieldset"))) input.checked = button.dataset.set === "all";
        choose();
      });
    }
    filters.hidden = false;
    choose();
  }
  for (const button of all("[data-picture]")) button.addEventListener("click", () => save(button));

  const plots = all(".plot");
  const watcher = new IntersectionObserver(
    (seen) => seen.filter((one) => one.isIntersecting).forEach((one) => draw(one.target)),
    { rootMargin: "400px" },
  );
  plots.forEach((plot) => watcher.observe(plot));
  // Vega needs no more than the end of this task, so that paper gets the figures that nobody has scrolled to.
  window.addEventListener("beforeprint", () => plots.forEach(draw));

  const idle = window.requestIdleCallback ?? ((work) => setTimeout(work, 50));
  for (const plot of plots) {
    await new Promise((resolve) => idle(resolve, { timeout: 1000 }));
    await draw(plot);
  }
  document.documentElement.dataset.drawn = plots.length;
})();
