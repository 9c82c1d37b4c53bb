// Reads the files that are named and prints one JSON document about them.
import * as std from "qjs:std";

const found = {};
for (const path of scriptArgs.slice(1)) {
  const text = std.loadFile(path);
  const words = text.match(/\w+/g);
  const counts = new Map();
  for (const word of words) counts.set(word, (counts.get(word) ?? 0) + 1);
  const often = [...counts].sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1)).slice(0, 3);
  found[path.split("/").pop()] = { words: words.length, often };
}
const factorial = (n) => (n < 2n ? 1n : n * factorial(n - 1n));
console.log(JSON.stringify({ found, factorial: String(factorial(30n)) }));
