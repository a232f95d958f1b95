"use strict";

const selftrain = (() => {
  const told = JSON.parse(document.getElementById("told").textContent);
  const IGNORE = 255, SHADOW = [0, 0, 0, 175], DISAGREE = [255, 0, 200];

  // Tables: a click on a heading sorts by it, numbers from the largest, names from A.

  const cell = (row, column) => row.cells[column].firstChild.textContent.trim();

  function value(text) {
    const number = parseFloat(text.replace("−", "-").replace(/,/g, ""));
    return Number.isNaN(number) ? null : number;
  }

  function compared(one, other) {
    const [a, b] = [value(one), value(other)];
    if (a === null && b === null) return one.localeCompare(other, undefined, {numeric: true});
    if (a === null || b === null) return a === null ? -1 : 1;
    return a - b;
  }

  function sort(table, heading, column) {
    const rows = [...table.tBodies[0].rows];
    const names = rows.every((row) => row.cells[column].classList.contains("name"));
    const before = heading.getAttribute("aria-sort");
    const descending = before ? before === "ascending" : !names;
    const missing = (row) => cell(row, column) === "–";
    rows.sort((one, other) => missing(one) - missing(other)
      || (descending ? -1 : 1) * compared(cell(one, column), cell(other, column)));
    table.tBodies[0].append(...rows);
    for (const other of table.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    if (table.tBodies[0].rows.length < 2) continue;
    [...table.tHead.rows].at(-1).querySelectorAll("th").forEach((heading, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      button.addEventListener("click", () => sort(table, heading, column));
      heading.append(button);
    });
  }

  // Experiments: what is typed leaves the rows and figures whose name has it.

  document.getElementById("filter").addEventListener("input", (event) => {
    const wanted = event.target.value.trim().toLowerCase();
    const hide = (element, name) => { element.hidden = !name.toLowerCase().includes(wanted); };
    for (const row of document.querySelectorAll(".task table.sortable tbody tr")) hide(row, row.cells[0].textContent);
    for (const figure of document.querySelectorAll(".of-each figure")) hide(figure, figure.firstChild.textContent);
  });

  // Pictures: gray levels are numbers, which get their colors here.

  async function decoded(uri) {
    const image = new Image();
    image.src = uri;
    await image.decode();
    return image;
  }

  async function numbers(uri) {
    const image = await decoded(uri);
    const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
    const context = canvas.getContext("2d", {willReadFrequently: true});
    context.drawImage(image, 0, 0);
    const {data, width, height} = context.getImageData(0, 0, canvas.width, canvas.height);
    return {width, height, values: Uint8Array.from({length: width * height}, (_, at) => data[4 * at])};
  }

  // Of each number from 0 to 255 its color and opacity.
  function palette(task, kind, only, opacity) {
    const strength = Math.round(255 * opacity);
    if (kind === "confidence") return told.ramp.map((color) => [...color, strength]);
    if (kind === "agreement") {
      return Array.from({length: 256}, (_, share) => [...DISAGREE, strength * Math.min(1, 2 - share / 127.5)]);
    }
    const colors = Array.from({length: 256}, (_, id) =>
      id < task.colors.length && (only === null || only === id) ? [...task.colors[id], strength] : [0, 0, 0, 0]);
    colors[IGNORE] = only === null ? SHADOW : [0, 0, 0, 0];
    return colors;
  }

  function paint(canvas, photo, plane, colors) {
    canvas.width = photo.naturalWidth;
    canvas.height = photo.naturalHeight;
    const context = canvas.getContext("2d");
    context.drawImage(photo, 0, 0);
    if (!plane) return;
    const pixels = new ImageData(plane.width, plane.height);
    plane.values.forEach((number, at) => pixels.data.set(colors[number], 4 * at));
    const over = new OffscreenCanvas(plane.width, plane.height);
    over.getContext("2d").putImageData(pixels, 0, 0);
    context.imageSmoothingEnabled = false;
    context.drawImage(over, 0, 0, canvas.width, canvas.height);
  }

  // Browsers of images, one per task.

  const waiting = {};

  function show(task, position, pictures) {
    waiting[`${task}/${position}`](pictures);
  }

  function load(task, position) {
    const key = `${task.task}/${position}`;
    return new Promise((resolve, reject) => {
      waiting[key] = resolve;
      const script = document.createElement("script");
      script.src = `images/${key}.js`;
      script.addEventListener("error", () => reject(new Error(`${script.src} is missing: it belongs beside the page`)));
      script.addEventListener("load", () => script.remove());
      document.head.append(script);
    });
  }

  function options(select, entries) {
    const before = select.value;
    select.replaceChildren(...entries.map(([key, title]) => new Option(title, key)));
    if (entries.some(([key]) => String(key) === before)) select.value = before;
  }

  class Browser {
    constructor(root, task) {
      this.root = root;
      this.task = task;
      this.controls = Object.fromEntries([...root.querySelectorAll("[name]")].map((one) => [one.getAttribute("name"), one]));
      this.stage = root.querySelector(".stage");
      this.grid = root.querySelector(".scene");
      this.reading = root.querySelector(".reading");
      options(this.controls.experiment, task.experiments.map((name) => [name, name]));
      const again = (names, call) => names.forEach((name) => this.controls[name].addEventListener("input", call));
      again(["experiment"], () => { this.layers(); this.choose(); });
      again(["class", "order"], () => { this.list(); this.choose(); });
      again(["image"], () => this.choose());
      again(["left", "right", "opacity"], () => this.draw());
      again(["wipe"], () => this.wipe());
      this.controls.previous.addEventListener("click", () => this.step(-1));
      this.controls.next.addEventListener("click", () => this.step(1));
      this.stage.addEventListener("pointermove", (event) => this.read(event));
      this.stage.addEventListener("pointerdown", (event) => this.drag(event));
      root.hidden = false;
      this.layers();
      this.list();
      this.wipe();
      // What lies far down is looked at when it is near.
      new IntersectionObserver((seen, observer) => {
        if (!seen.some((one) => one.isIntersecting)) return;
        observer.disconnect();
        this.choose();
      }, {rootMargin: "600px"}).observe(root);
    }

    get only() {
      return this.controls.class.value === "" ? null : Number(this.controls.class.value);
    }

    // The images that show the class, in the order asked for.
    list() {
      const only = this.only, order = this.controls.order.value;
      const by = {confidence: (one) => one.confidence, rarity: (one) => -one.rarity};
      this.images = this.task.images.map((image, position) => ({...image, position}))
        .filter((image) => only === null || image.classes.includes(only));
      this.images.sort(by[order] ? (a, b) => by[order](a) - by[order](b)
        : (a, b) => a.name.localeCompare(b.name, undefined, {numeric: true}));
      const image = this.controls.image;
      image.replaceChildren(...this.images.map((one) => new Option(one.name, one.position)));
      image.disabled = !this.images.length;
    }

    // What there is to see of the experiment; before and after, to begin with.
    layers() {
      const experiment = this.controls.experiment.value;
      this.shown = [{key: "", title: "image", kind: "photo"},
        ...this.task.layers.filter((one) => one.experiments === null || one.experiments.includes(experiment))];
      const entries = this.shown.map((one) => [one.key, one.title]);
      const first = (start) => this.shown.find((one) => one.key.startsWith(start));
      options(this.controls.left, entries);
      options(this.controls.right, entries);
      const later = first("after ") ?? first("labels ");
      this.controls.left.value = (later && first("before ") || this.shown[0]).key;
      this.controls.right.value = (later ?? first("before ") ?? this.shown.at(-1)).key;
    }

    step(by) {
      const image = this.controls.image;
      image.selectedIndex = Math.min(Math.max(image.selectedIndex + by, 0), this.images.length - 1);
      this.choose();
    }

    async choose() {
      const at = this.controls.image.selectedIndex;
      this.controls.previous.disabled = at <= 0;
      this.controls.next.disabled = at < 0 || at === this.images.length - 1;
      this.controls.count.textContent = at < 0 ? "no image shows this class" : `${at + 1} of ${this.images.length}`;
      this.stage.hidden = this.grid.hidden = at < 0;
      if (at < 0) return;
      const {position} = this.chosen = this.images[at];
      this.stage.style.aspectRatio = `${this.chosen.width} / ${this.chosen.height}`;
      try {
        const pictures = this.task.pictures?.[position] ?? await load(this.task, position);
        const photo = await decoded(pictures.photo);
        const wanted = this.shown.filter((one) => pictures.layers[one.key]);
        const found = await Promise.all(wanted.map((one) => numbers(pictures.layers[one.key][0])));
        if (this.chosen.position !== position) return;
        this.photo = photo;
        this.notes = Object.fromEntries(wanted.map((one) => [one.key, pictures.layers[one.key][1]]));
        this.planes = Object.fromEntries(wanted.map((one, index) => [one.key, found[index]]));
        this.draw();
      } catch (error) {
        this.reading.textContent = error.message;
      }
    }

    draw() {
      if (!this.photo) return;
      const opacity = this.controls.opacity.value / 100;
      const colors = {};
      for (const kind of ["classes", "confidence", "agreement"]) colors[kind] = palette(this.task, kind, this.only, opacity);
      const put = (canvas, layer) => {
        paint(canvas, this.photo, this.planes[layer.key], colors[layer.kind]);
        canvas.setAttribute("role", "img");
        const told = [this.chosen.name, layer.title, this.notes[layer.key]];
        canvas.setAttribute("aria-label", told.filter(Boolean).join(", "));
      };
      for (const side of ["left", "right"]) {
        const layer = this.shown.find((one) => one.key === this.controls[side].value);
        put(this.stage.querySelector(`canvas.${side}`), layer);
      }
      this.grid.replaceChildren(...this.shown.filter((one) => !one.key || this.planes[one.key]).map((layer) => {
        const [figure, canvas, caption, note] = ["figure", "canvas", "figcaption", "small"].map((tag) => document.createElement(tag));
        put(canvas, layer);
        note.textContent = this.notes[layer.key] ?? "";
        caption.append(layer.title, " ", note);
        figure.append(canvas, caption);
        return figure;
      }));
    }

    wipe() {
      this.stage.style.setProperty("--wipe", `${this.controls.wipe.value}%`);
    }

    // Where the pointer is, from 0 to 1.
    place(event) {
      const box = this.stage.getBoundingClientRect();
      return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    }

    drag(event) {
      const move = (moved) => {
        this.controls.wipe.value = 100 * this.place(moved)[0];
        this.wipe();
      };
      move(event);
      this.stage.setPointerCapture(event.pointerId);
      this.stage.addEventListener("pointermove", move);
      const end = () => this.stage.removeEventListener("pointermove", move);
      this.stage.addEventListener("pointerup", end, {once: true});
      this.stage.addEventListener("pointercancel", end, {once: true});
    }

    read(event) {
      if (!this.photo) return;
      const [x, y] = this.place(event);
      const said = ["left", "right"].map((side) => {
        const layer = this.shown.find((one) => one.key === this.controls[side].value);
        return `${layer.title}: ${this.said(layer, x, y)}`;
      });
      this.reading.textContent = said.join(" · ");
    }

    said(layer, x, y) {
      const plane = this.planes[layer.key];
      if (!plane) return "–";
      const [column, row] = [[x, plane.width], [y, plane.height]]
        .map(([part, length]) => Math.min(Math.max(Math.floor(part * length), 0), length - 1));
      const number = plane.values[row * plane.width + column];
      if (layer.kind === "confidence") {
        const logOdds = number / 4 - 8;
        return `log-odds ${logOdds.toFixed(1)}, ${(100 / (1 + Math.exp(-logOdds))).toPrecision(4)} %`;
      }
      if (layer.kind === "agreement") return `${Math.round(number / 2.55)} % of branches`;
      return number === IGNORE ? "ignored" : this.task.classes[number];
    }
  }

  for (const root of document.querySelectorAll(".browser")) {
    const task = told.tasks.find((one) => one.task === root.dataset.task);
    if (task.images.length) new Browser(root, task);
  }

  return {show};
})();
