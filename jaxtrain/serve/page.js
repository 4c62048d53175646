"use strict";
const model = JSON.parse(document.getElementById("model").textContent);
const part = (id) => document.getElementById(id);
const make = (name, text = "", more = {}) => Object.assign(document.createElement(name), { textContent: text }, more);
const MOST_BARS = 10;

// The pixels of the picture that was dropped, before white and inversion are applied: RGBA, as many as the model takes.
let pixels = null;

// What is wrong with the row that was pasted, until it or a field is changed.
let wrongRow = null;

/* Inputs: each function below returns the tensors of one example, or throws the line to show. */

const size = () => model.inputs[0].shape.reduce((product, length) => product * length, 1);
const isInteger = () => /INT/.test(model.inputs[0].datatype);
const arrayTensor = (values) => [{ ...model.inputs[0], shape: [1, ...model.inputs[0].shape], data: values }];

function numbersTensor() {
  const values = part("values").value.split(/[\s,;[\]]+/).filter(Boolean).map(Number);
  if (values.length !== size()) throw new Error(`${values.length} numbers; expected ${size()}`);
  if (!values.every(Number.isFinite)) throw new Error("a value is no number");
  return arrayTensor(values);
}

function pictureTensor() {
  if (!pixels) throw new Error("no picture yet; drop one, or open an example");
  const channels = model.inputs[0].shape[2];
  const white = Number(part("white").value);
  const values = [];
  for (let at = 0; at < pixels.length; at += 4) {
    const [red, green, blue, alpha] = pixels.slice(at, at + 4);
    const grey = 0.299 * red + 0.587 * green + 0.114 * blue;
    for (const value of channels === 1 ? [grey] : [red, green, blue, alpha].slice(0, channels)) {
      const scaled = ((part("invert").checked ? 255 - value : value) / 255) * white;
      values.push(isInteger() ? Math.round(scaled) : scaled);
    }
  }
  return arrayTensor(values);
}

function rowTensors() {
  if (wrongRow) throw wrongRow;
  return model.inputs.map((input) => {
    const text = part("fields").querySelector(`[data-column="${CSS.escape(input.name)}"]`).value.trim();
    const isNumber = input.datatype !== "BYTES";
    if (isNumber && text && !Number.isFinite(Number(text))) throw new Error(`${input.name}: "${text}" is no number`);
    return { ...input, shape: [1], data: [isNumber ? (text ? Number(text) : null) : text] };
  });
}

const isPasted = () => model.kind === "numbers" || (part("numbers").open && part("values").value.trim());
const tensors = () => (model.kind === "table" ? rowTensors() : isPasted() ? numbersTensor() : pictureTensor());

/* Pictures: scaled to the size of the model by halves, which averages all pixels of a large one. */

function canvasOf(width, height) {
  const canvas = make("canvas", "", { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  return [canvas, context];
}

async function takePicture(file) {
  const [height, width, channels] = model.inputs[0].shape;
  let source;
  try {
    source = await createImageBitmap(file);
  } catch {
    return showError(new Error("the file is no picture that this browser reads"));
  }
  const fits = source.width === width && source.height === height;
  part("scaled").textContent = `${source.width} × ${source.height} pixels${fits ? "" : `, scaled to the ${width} × ${height} of the model`}.`;
  while (source.width > 2 * width || source.height > 2 * height) {
    const [half, context] = canvasOf(Math.max(width, source.width >> 1), Math.max(height, source.height >> 1));
    context.drawImage(source, 0, 0, half.width, half.height);
    source = half;
  }
  const [, context] = canvasOf(width, height);
  if (channels !== 4) {
    context.fillStyle = "white";
    context.fillRect(0, 0, width, height);
  }
  context.drawImage(source, 0, 0, width, height);
  pixels = context.getImageData(0, 0, width, height).data;
  part("numbers").open = false;
  showSeen(pictureTensor()[0].data);
  await predict();
}

function showSeen(values) {
  const [height, width, channels] = model.inputs[0].shape;
  const canvas = part("seen");
  Object.assign(canvas, { width, height, hidden: false });
  const white = Number(part("white").value) || 1;
  const image = new ImageData(width, height);
  for (let at = 0; at < width * height; at++) {
    const shown = values.slice(at * channels, (at + 1) * channels).map((value) => (value / white) * 255);
    image.data.set(channels === 1 ? [shown[0], shown[0], shown[0], 255] : [...shown, 255].slice(0, 4), at * 4);
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  part("invitation").textContent = "This is what the model sees. Drop another picture, or click to choose a file.";
}

/* Rows of a table. */

const separatorOf = (line) => ["\t", ";", ","].find((mark) => line.replace(/"[^"]*"/g, "").includes(mark)) ?? ",";

function splitLine(line) {
  const separator = separatorOf(line);
  const cells = [""];
  let quoted = false;
  let last = "";
  for (const letter of line) {
    if (letter === '"') {
      if (!quoted && last === '"') cells[cells.length - 1] += '"'; // two quotes within quotes are one
      quoted = !quoted;
    } else if (letter === separator && !quoted) cells.push("");
    else cells[cells.length - 1] += letter;
    last = letter;
  }
  return cells.map((cell) => cell.trim());
}

function takeRow() {
  const lines = part("pasted").value.split(/\r?\n/).filter((line) => line.trim());
  if (!lines.length) return;
  const names = model.inputs.map((input) => input.name);
  const first = splitLine(lines[0]);
  const hasHeader = lines.length > 1 && first.some((cell) => names.includes(cell));
  const header = hasHeader ? first : names;
  const cells = splitLine(lines[hasHeader ? 1 : 0]);
  const missing = names.filter((name) => !header.includes(name));
  if (missing.length) throw new Error(`no column ${missing.map((name) => `"${name}"`).join(", ")} in the pasted row`);
  if (cells.length !== header.length) throw new Error(`${cells.length} values; expected ${header.length}: ${header.join(", ")}`);
  fillRow(Object.fromEntries(names.map((name) => [name, cells[header.indexOf(name)]])));
}

function fillRow(row) {
  for (const field of part("fields").querySelectorAll("[data-column]")) field.value = row[field.dataset.column] ?? "";
}

function makeFields() {
  for (const input of model.inputs) {
    const label = make("label", input.name);
    const field = make("input", "", { type: "text" });
    field.dataset.column = input.name;
    field.inputMode = input.datatype === "BYTES" ? "text" : "decimal";
    const categories = model.categories[input.name];
    if (categories) {
      const list = make("datalist", "", { id: `categories-${model.inputs.indexOf(input)}` });
      list.append(...categories.map((value) => make("option", "", { value })));
      field.setAttribute("list", list.id);
      label.append(list);
    }
    label.append(field);
    part("fields").append(label);
  }
}

/* Outputs. */

const classOf = (place) => model.classes[place] ?? String(place);
const percent = (share) => `${(100 * share).toFixed(1)} %`;

function bars(pairs) {
  const table = make("table");
  for (const [name, share] of pairs) {
    const row = table.insertRow();
    const head = make("th", name, { scope: "row" });
    const bar = make("td", "", { className: "bar" });
    bar.append(make("meter", "", { min: 0, max: 1, value: share, title: percent(share) }));
    row.append(head, bar, make("td", percent(share), { className: "number" }));
  }
  return table;
}

function showClasses(outputs) {
  const shares = outputs.probabilities.data;
  const all = outputs.class && shares.length === 1 ? [1 - shares[0], shares[0]] : shares;
  const pairs = all.map((share, place) => [classOf(place), share]).sort((one, other) => other[1] - one[1]);
  const chosen = outputs.class
    ? [classOf(outputs.class.data[0])]
    : outputs.labels.data.flatMap((is, place) => (is ? [classOf(place)] : []));
  const shown = [make("p", chosen.join(", ") || "none of the labels", { className: "chosen" }), bars(pairs.slice(0, MOST_BARS))];
  if (pairs.length > MOST_BARS) shown.push(make("p", `and ${pairs.length - MOST_BARS} more`, { className: "note" }));
  return shown;
}

function showNumbers(outputs) {
  const digits = outputs.numbers.datatype === "FP64" ? 12 : 7; // as many as the type holds
  const shown = (value) => (value === null ? "not finite" : String(Number(value.toPrecision(digits))));
  const table = make("table");
  outputs.numbers.data.forEach((value, place) => {
    const row = table.insertRow();
    const name = model.targets[place] ?? (outputs.numbers.data.length > 1 ? `number ${place + 1}` : "number");
    row.append(make("th", name, { scope: "row" }), make("td", shown(value), { className: "number" }));
  });
  return [table];
}

const hue = (place) => (place ? `hsl(${(place * 137) % 360} 65% 55%)` : "#000000");

function showMask(outputs) {
  const [, height, width] = outputs.mask.shape;
  const [canvas, context] = canvasOf(width, height);
  canvas.className = "mask";
  outputs.mask.data.slice(0, width * height).forEach((place, at) => {
    context.fillStyle = hue(place);
    context.fillRect(at % width, Math.floor(at / width), 1, 1);
  });
  const found = [...new Set(outputs.mask.data)].sort((one, other) => one - other);
  const keys = make("p");
  for (const place of found) {
    const key = make("span", "", { className: "key" });
    key.style.background = hue(place);
    keys.append(key, `${classOf(place)}   `);
  }
  return [canvas, keys];
}

function showResult(answer) {
  const outputs = Object.fromEntries(answer.outputs.map((output) => [output.name, output]));
  const show = outputs.probabilities ? showClasses : outputs.mask ? showMask : outputs.numbers ? showNumbers : null;
  const plain = () => [make("pre", answer.outputs.map((output) => `${output.name}: ${output.data.join(" ")}`).join("\n"))];
  part("result").replaceChildren(...(show ? show(outputs) : plain()));
}

// Says of each category that training did not have that it counts as none of those that it had.
function showUnknown() {
  for (const field of part("fields").querySelectorAll("[data-column]")) {
    const categories = model.categories[field.dataset.column];
    const text = field.value.trim();
    if (!categories || !text || categories.includes(text)) continue;
    const line = `${field.dataset.column}: "${text}" is no category of training, and counts as none of them`;
    part("result").append(make("p", line, { className: "note" }));
  }
}

function showError(error) {
  part("error").textContent = error.message;
}

async function post(route, body) {
  const path = `v2/models/${encodeURIComponent(model.name)}/${route}`;
  let response;
  try {
    response = await fetch(path, { method: "POST", body: JSON.stringify(body) });
  } catch {
    throw new Error("the server does not answer");
  }
  if (!response.ok) throw new Error((await response.json()).error);
  return response;
}

async function ask(inputs) {
  const outputs = model.outputs.length ? { outputs: model.outputs.map((name) => ({ name })) } : {};
  return (await post("infer", { inputs, ...outputs })).json();
}

/* Texts, which come as events, each with a piece. */

async function* eventsOf(response) {
  let rest = "";
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    const lines = (rest + part.value).split("\n\n");
    rest = lines.pop();
    yield* lines.map((line) => JSON.parse(line.replace("data: ", "")));
  }
}

async function continueText() {
  const numbers = { max_tokens: "tokens", temperature: "temperature", seed: "seed" };
  const parameters = Object.fromEntries(Object.entries(numbers).map(([name, id]) => [name, Number(part(id).value)]));
  const prompt = part("prompt").value;
  const shown = make("p", "", { className: "continued" });
  shown.append(make("span", prompt));
  part("result").replaceChildren(shown);
  const response = await post("generate_stream", { text_input: prompt, parameters });
  for await (const event of eventsOf(response)) {
    if (event.error) throw new Error(event.error);
    shown.append(event.text_output);
  }
}

async function predict() {
  showError({ message: "" });
  part("predict").disabled = model.kind === "text"; // until the text is whole
  try {
    if (model.kind === "text") await continueText();
    else {
      showResult(await ask(tensors()));
      showUnknown();
    }
  } catch (error) {
    // A prediction of other inputs must not stand beside these; what there is of a text stays.
    if (model.kind !== "text") part("result").replaceChildren(make("p", "Nothing yet.", { className: "note" }));
    showError(error);
  }
  part("predict").disabled = false;
}

/* The page. */

function openExample(example) {
  wrongRow = null;
  if (model.kind === "table") {
    fillRow(example);
  } else if (model.kind === "text") {
    part("prompt").value = example.text;
  } else {
    const values = example[model.inputs[0].name];
    part("values").value = values.join(" ");
    part("numbers").open = true;
    if (model.kind === "picture") showSeen(values);
  }
  predict();
}

function start() {
  const kind = model.kind;
  part("picture").hidden = kind !== "picture";
  part("row").hidden = kind !== "table";
  part("numbers").hidden = kind === "table" || kind === "text";
  part("text").hidden = kind !== "text";
  if (kind === "text") part("predict").textContent = "Continue";
  part("numbers").open = kind === "numbers";
  part("white").value = model.white;
  part("white").parentNode.hidden = model.white === 255;
  part("invert").parentNode.hidden = model.inputs[0].shape[2] > 1;
  part("numbers-label").textContent = `${size()} numbers: ${model.inputs[0].shape.join(" × ")}, as they lie in files.`;
  if (kind === "table") makeFields();
  part("examples").hidden = !model.examples.length;
  model.examples.forEach((example, place) => {
    const button = make("button", String(place + 1), { type: "button" });
    button.addEventListener("click", () => openExample(example));
    part("examples").append(button, " ");
  });
  part("predict").addEventListener("click", predict);
  part("pasted").addEventListener("input", () => {
    wrongRow = null;
    try {
      takeRow();
    } catch (error) {
      wrongRow = error;
    }
    showError(wrongRow ?? { message: "" });
  });
  part("fields").addEventListener("input", () => (wrongRow = null));
  for (const id of ["white", "invert"]) {
    part(id).addEventListener("change", () => {
      if (!pixels) return;
      part("numbers").open = false;
      showSeen(pictureTensor()[0].data);
      predict();
    });
  }
  part("file").addEventListener("change", () => part("file").files.length && takePicture(part("file").files[0]));
  takeDrops(kind === "picture");
}

function takeDrops(takesPictures) {
  const drop = part("drop");
  const over = (is) => (event) => {
    event.preventDefault(); // else the browser would leave the page for the file
    drop.classList.toggle("over", is);
  };
  for (const [name, is] of [["dragover", true], ["dragleave", false], ["drop", false]]) document.addEventListener(name, over(is));
  if (!takesPictures) return;
  document.addEventListener("drop", (event) => event.dataTransfer.files.length && takePicture(event.dataTransfer.files[0]));
  document.addEventListener("paste", (event) => event.clipboardData.files.length && takePicture(event.clipboardData.files[0]));
  drop.addEventListener("keydown", (event) => ["Enter", " "].includes(event.key) && part("file").click());
}

start();
