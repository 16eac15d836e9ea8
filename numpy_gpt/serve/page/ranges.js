// The parts of the text that the model wrote, as [from, to] pairs.

// Return the ranges after an edit that turned one text into another.
export function edited(ranges, before, after) {
  const shortest = Math.min(before.length, after.length);
  let start = 0;
  while (start < shortest && before[start] === after[start]) start++;
  let same = 0;
  while (same < shortest - start && before.at(-1 - same) === after.at(-1 - same)) same++;
  const end = before.length - same;
  const shift = after.length - before.length;
  return ranges
    .flatMap(([from, to]) => [
      [from, Math.min(to, start)],
      [Math.max(from, end) + shift, to + shift],
    ])
    .filter(([from, to]) => from < to);
}

// Cut all ranges at a position.
export function cutAt(ranges, end) {
  return ranges.map(([from, to]) => [from, Math.min(to, end)]).filter(([from, to]) => from < to);
}
