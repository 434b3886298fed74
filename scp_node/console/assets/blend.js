// Lays a saliency map over a radiograph with the formula of the node's own pictures; knows nothing of the page.
"use strict";

const Blend = (() => {
  let tables = {};

  async function load(address) {
    const packed = await (await fetch(address)).json();
    for (const [name, text] of Object.entries(packed)) {
      tables[name] = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    }
  }

  function image(base64) {
    return new Promise((resolve, reject) => {
      const made = new Image();
      made.onload = () => resolve(made);
      made.onerror = () => reject(new Error("the picture cannot be shown"));
      made.src = `data:image/png;base64,${base64}`;
    });
  }

  // Grey values of a picture, enlarged to rows x columns where asked.
  function greys(picture, columns, rows) {
    const canvas = document.createElement("canvas");
    canvas.width = columns;
    canvas.height = rows;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.imageSmoothingQuality = "high";
    context.drawImage(picture, 0, 0, columns, rows);
    const pixels = context.getImageData(0, 0, columns, rows).data;
    const values = new Uint8Array(columns * rows);
    for (let index = 0; index < values.length; index++) values[index] = pixels[4 * index];
    return values;
  }

  // The share of colour grows with the saliency: where there is none, the radiograph shows as it is.
  function draw(canvas, radiograph, saliency, colormap, alpha) {
    const { columns, rows, values } = radiograph;
    if (canvas.width !== columns || canvas.height !== rows) {
      canvas.width = columns;
      canvas.height = rows;
    }
    const context = canvas.getContext("2d");
    const made = context.createImageData(columns, rows);
    const out = new Uint32Array(made.data.buffer);
    const colours = tables[colormap];
    const weights = new Uint16Array(256);
    for (let level = 0; level < 256; level++) weights[level] = Math.round((256 * alpha * level) / 255);
    for (let index = 0; index < out.length; index++) {
      const grey = values[index];
      const level = saliency ? saliency[index] : 0;
      const weight = weights[level];
      const rest = grey * (256 - weight) + 128;
      const red = (rest + colours[3 * level] * weight) >> 8;
      const green = (rest + colours[3 * level + 1] * weight) >> 8;
      const blue = (rest + colours[3 * level + 2] * weight) >> 8;
      out[index] = 0xff000000 | (blue << 16) | (green << 8) | red;
    }
    context.putImageData(made, 0, 0);
  }

  function scale(canvas, colormap, alpha) {
    const all = Uint8Array.from({ length: 256 }, (_, level) => level);
    draw(canvas, { columns: 256, rows: 1, values: new Uint8Array(256).fill(128) }, all, colormap, alpha);
  }

  return { load, image, greys, draw, scale };
})();
