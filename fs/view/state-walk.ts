import { encodeHead } from '../log/needed.ts';
import { putNode } from './checkpoint.ts';
import type { Node } from './node.ts';
import { PieceWriter } from './pieces.ts';
import type { State } from './state.ts';

/** Inodes with more names or runs than this are copied, which is fast, and written from the copy, which is not. */
const LARGE = 512;
/** The clock is looked at after so many inodes, or stretches of a large one. */
const STRIDE = 16;

/**
 * Writes a state as it was at one moment as a checkpoint's payload, a little at a time, while the state changes: an inode whose turn has not come is written
 * before it is changed, if it is small, and copied if it is large. One walk at a time.
 */
export class StateWalk {
  readonly #state: State;
  readonly #number: number;
  readonly #out = new PieceWriter();
  /** Small inodes that changed before their turn: they go to the end. */
  readonly #early = new PieceWriter();
  /** Copies of large ones. */
  readonly #copies: Node[] = [];
  readonly #nodes: Iterator<Node>;
  #inHand: Generator<void> | undefined;
  #isDone = false;

  /** Of the state as it is now. */
  constructor(state: State) {
    this.#state = state;
    this.#number = ++lastWalk;
    state.walk = this;
    this.#out.raw(encodeHead(state.nextIno, state.nodeCount, state.live.sectors()));
    this.#nodes = state.nodes();
  }

  /** Goes on for about so long (0: by the least step); true when all is written. */
  step(budgetMs: number): boolean {
    const end = performance.now() + budgetMs;
    for (let count = 1; !this.#isDone; count++) {
      if (!this.#next()) this.stop();
      if (budgetMs === 0 || (count % STRIDE === 0 && performance.now() >= end)) break;
    }
    return this.#isDone;
  }

  /** The pieces that are full, and with the last call the rest. */
  take(): Uint8Array<ArrayBuffer>[] {
    if (!this.#isDone) return this.#out.take();
    return [...this.#out.finish(), ...this.#early.finish()].filter((piece) => piece.length > 0);
  }

  /** Nothing more is wanted, whether it is done or not. */
  stop(): void {
    this.#isDone = true;
    if (this.#state.walk === this) this.#state.walk = undefined;
  }

  /** The state is about to change this inode, or to forget it. */
  beforeChange(node: Node): void {
    if (node.walked === this.#number) return;
    node.walked = this.#number;
    if (isLarge(node)) this.#copies.push(node.frozen());
    else exhaust(putNode(this.#early, node));
  }

  /** This inode was not there when the walk began. */
  skip(node: Node): void {
    node.walked = this.#number;
  }

  /** Writes one inode more, or a stretch of a large one; false when there is none. */
  #next(): boolean {
    if (this.#inHand !== undefined) {
      if (this.#inHand.next().done === true) this.#inHand = undefined;
      return true;
    }
    const copy = this.#copies.pop();
    if (copy !== undefined) {
      this.#inHand = putNode(this.#out, copy);
      return true;
    }
    for (;;) {
      const { value: node, done } = this.#nodes.next();
      if (done === true) return false;
      if (node.walked === this.#number) continue;
      node.walked = this.#number;
      if (isLarge(node)) this.#inHand = putNode(this.#out, node.frozen());
      else exhaust(putNode(this.#out, node));
      return true;
    }
  }
}

let lastWalk = 0;

/** The whole state as pieces, one after another. */
export function serializeState(state: State): Uint8Array[] {
  const walk = new StateWalk(state);
  const pieces: Uint8Array[] = [];
  while (!walk.step(Infinity)) pieces.push(...walk.take());
  return [...pieces, ...walk.take()];
}

function exhaust(work: Generator<void>): void {
  while (work.next().done !== true) {}
}

const isLarge = ({ dir, extents }: Node): boolean =>
  (dir !== undefined && dir.added + (dir.changed?.size ?? 0) > LARGE) ||
  (extents !== undefined && extents.count > LARGE);
