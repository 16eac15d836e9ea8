// The tokens that a view offers to choose from.

// Return the 20 likeliest tokens after a position and, if it isn't among them, the one that follows in the text.
export async function choices(inside, position) {
  const { candidates } = await inside.ask("candidates", { position });
  const tokens = candidates.map(({ token }) => token);
  const next = inside.tokens[position + 1];
  return next && !tokens.some(({ id }) => id === next.id) ? [...tokens, next] : tokens;
}
