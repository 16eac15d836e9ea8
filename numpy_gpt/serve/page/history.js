// Undo and redo. Typing within a second of the last change is one step.

const MERGE = 1000; // ms

export class History {
  constructor(state) {
    this.states = [state];
    this.index = 0;
    this.kind = "";
    this.time = 0;
  }

  get state() {
    return this.states[this.index];
  }

  record(state, kind) {
    const now = performance.now();
    const merge = kind === "type" && this.kind === "type" && now - this.time < MERGE && this.index > 0;
    this.states.length = this.index + 1;
    if (merge) this.states[this.index] = state;
    else this.index = this.states.push(state) - 1;
    this.kind = kind;
    this.time = now;
  }

  // Move by -1 (undo) or 1 (redo) and return the state there, or null at the end of the list.
  move(step) {
    if (!this.has(step)) return null;
    this.index += step;
    this.kind = "";
    return this.state;
  }

  has(step) {
    return this.index + step >= 0 && this.index + step < this.states.length;
  }
}
