"use strict";
// The page is whole without this: it adds sorting, the filter, and switches for all pictures.
(() => {
  const table = document.getElementById("cohort");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const cards = new Map([...document.querySelectorAll(".card")].map((card) => [card.dataset.slide, card]));

  // Where the page is embedded (Snakemake's report), its relative links lead nowhere.
  if (!["file:", "http:", "https:"].includes(location.protocol) || window.origin === "null" && location.protocol !== "file:") {
    for (const link of document.querySelectorAll("a.file")) link.removeAttribute("href");
  }
  // Links within the page, for frames that do not follow them.
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.('a[href^="#"]');
    const target = link && document.getElementById(link.getAttribute("href").slice(1));
    if (!target) return;
    if (target.hidden) { only.value = ""; filter.value = ""; show(); }
    if (location.protocol !== "file:" && !location.protocol.startsWith("http")) {
      event.preventDefault();
      target.scrollIntoView();
    }
  });

  // Sorting: empty cells last in both directions, equal ones in the order of the sheet.
  const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
  // The reason of a slide without result takes the place of its numbers.
  const valueOf = (row, column) => {
    const cell = row.cells[column];
    return cell ? (cell.dataset.value ?? cell.textContent).trim() : "";
  };
  const sortBy = (column, heading) => {
    const direction = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    const keyed = rows.map((row, place) => ({ row, place, key: valueOf(row, column) }));
    const numeric = keyed.every(({ key }) => key === "" || Number.isFinite(Number(key)));
    const compare = numeric ? (a, b) => Number(a) - Number(b) : collator.compare;
    keyed.sort((a, b) => {
      if (a.key === "" || b.key === "") return (a.key === "") - (b.key === "") || a.place - b.place;
      return direction * compare(a.key, b.key) || a.place - b.place;
    });
    body.append(...keyed.map(({ row }) => row));
    for (const other of table.tHead.rows[0].querySelectorAll("th")) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
  };
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    if (heading.tagName !== "TH") return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => sortBy(column, heading));
  });

  // The filter: every word must stand somewhere in a slide's row.
  const filter = document.getElementById("filter");
  const only = document.getElementById("only");
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  const show = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const states = only.value.split(" ").filter(Boolean);
    let count = 0;
    for (const row of rows) {
      const state = row.dataset.state.split(" ");
      const hit = words.every((word) => texts.get(row).includes(word)) && (!states.length || states.some((s) => state.includes(s)));
      row.hidden = !hit;
      const card = cards.get(row.dataset.slide);
      if (card) card.hidden = !hit;
      count += hit;
    }
    document.getElementById("shown").textContent = count === rows.length ? "" : `${count} of ${rows.length} slides`;
  };
  filter.addEventListener("input", show);
  only.addEventListener("change", show);
  document.getElementById("controls").hidden = false;

  // One switch for the classes on all pictures.
  const toggles = [...document.querySelectorAll(".toggle input")];
  if (toggles.length) {
    const all = document.getElementById("all-layers");
    all.addEventListener("change", () => { for (const toggle of toggles) toggle.checked = all.checked; });
    document.getElementById("layers").hidden = false;
  }

  // A class's name shows this class alone on the picture: readable without telling colours apart.
  const rgb = (text) => text.match(/\d+/g).map(Number);
  const near = (data, at, [r, g, b]) => (data[at] - r) ** 2 + (data[at + 1] - g) ** 2 + (data[at + 2] - b) ** 2;
  const showAlone = (card, wanted) => {
    const layer = card.querySelector("img.layer");
    card.querySelector("canvas.layer")?.remove();
    layer.classList.toggle("replaced", wanted !== null);
    if (wanted === null) return;
    const canvas = document.createElement("canvas");
    canvas.width = layer.naturalWidth;
    canvas.height = layer.naturalHeight;
    canvas.className = "layer";
    const context = canvas.getContext("2d");
    context.drawImage(layer, 0, 0);
    const image = context.getImageData(0, 0, canvas.width, canvas.height);
    const colours = [...card.querySelectorAll("[data-color]")].map((cell) => rgb(cell.dataset.color));
    // Borders are drawn in a darker shade of their class.
    const shades = colours.flatMap((colour, index) => [[index, colour], [index, colour.map((value) => value * 0.6)]]);
    for (let at = 0; at < image.data.length; at += 4) {
      if (!image.data[at + 3]) continue;
      let best = 0;
      let least = Infinity;
      for (const [index, shade] of shades) {
        const distance = near(image.data, at, shade);
        if (distance < least) [best, least] = [index, distance];
      }
      if (best !== wanted) image.data[at + 3] = 0;
      else image.data[at + 3] = Math.min(255, image.data[at + 3] * 1.4);
    }
    context.putImageData(image, 0, 0);
    layer.after(canvas);
  };
  for (const card of cards.values()) {
    const layer = card.querySelector("img.layer");
    if (!layer) continue;
    const buttons = [...card.querySelectorAll(".class-name")].map((name, index) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "class-name";
      button.textContent = name.textContent;
      button.title = "Show this class alone on the picture";
      button.setAttribute("aria-pressed", "false");
      name.replaceWith(button);
      button.addEventListener("click", async () => {
        const wanted = button.getAttribute("aria-pressed") === "true" ? null : index;
        for (const other of buttons) other.setAttribute("aria-pressed", String(other === button && wanted !== null));
        await layer.decode();
        showAlone(card, wanted);
      });
      return button;
    });
  }

  // Paper has no scroll bars and no closed sections.
  addEventListener("beforeprint", () => { for (const details of document.querySelectorAll("details")) details.open = true; });
})();
