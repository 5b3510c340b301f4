"use strict";
const SVG = "http://www.w3.org/2000/svg";
const get = (id) => document.getElementById(id);
const all = (selector, root) => Array.from((root || document).querySelectorAll(selector));
const data = JSON.parse(get("data").textContent);

function add(parent, name, attributes, text) {
  const inside = name === "svg" || parent.namespaceURI === SVG;
  const made = inside ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  parent.append(made);
  return made;
}

