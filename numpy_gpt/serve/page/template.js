// Turn a conversation into a text that the model continues.

export const PRESETS = {
  Story: { opening: "Tom and Lily were talking.\n", turn: 'Tom said, "{message}"\nLily said, "{answer}"\n' },
  "Question and answer": { opening: "", turn: "Question: {message}\nAnswer: {answer}\n\n" },
  Instruction: {
    opening: "Below is an instruction. Write a response that completes the request.\n\n",
    turn: "### Instruction:\n{message}\n\n### Response:\n{answer}\n\n",
  },
};

// Return the prompt of a conversation whose last turn has no answer yet. A turn is {message, answer}.
export function compose({ opening, turn }, turns) {
  const [before, after] = split(turn);
  const whole = turns.slice(0, -1).map(({ message, answer }) => fill(before, message) + answer + after);
  return opening + whole.join("") + fill(before, turns.at(-1).message);
}

// Return the string that ends an answer: the template after {answer}, up to its first line break if it has other
// characters; else the start of the next turn.
export function stopString({ turn }) {
  const [before, after] = split(turn);
  const line = after.match(/^\s*[^\n]+/)?.[0] ?? after;
  return line || before.split("{message}")[0];
}

function split(turn) {
  if (!turn.includes("{message}")) throw new Error("The template of a turn has no {message}: add it.");
  if (!turn.includes("{answer}")) throw new Error("The template of a turn has no {answer}: add it.");
  const at = turn.indexOf("{answer}");
  return [turn.slice(0, at), turn.slice(at + "{answer}".length)];
}

const fill = (text, message) => text.split("{message}").join(message);
