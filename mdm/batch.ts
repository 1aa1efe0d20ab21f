import { addCost, type Cost, INIT_COST, withinBudget } from './cost.ts';
import { isPgError, PgError } from './error.ts';
import type { CommittedFile } from './file.ts';
import { type Instruction, machineError, type State } from './instruction.ts';
import { NO_BYTES, type Operation, SLICE_BYTES } from './instructions/operation.ts';
import { decodeInstruction } from './instructions/table.ts';
import { buildProof, proofLength, type ProofSource } from './opening.ts';
import { StagedFile } from './staged-file.ts';

/**
 * A batch: instructions that take a file from one state to the next wholly or not at all. Instructions come first and
 * payloads after, so that a batch is planned, priced and refused before any payload is there.
 */
export interface Batch {
  /** The state it starts from; it is refused when the file's is another. */
  initial: State;
  instructions: readonly Instruction[];
}

export interface BatchOptions {
  /** A batch that would cost more in any of the four resources is refused before it runs. */
  budget?: Cost;
  /** Interrupts the batch when aborted, at any time before it is committed. */
  signal?: AbortSignal;
  /**
   * Bytes of memory that the blocks it writes, its outputs and its proofs may take, by what its inputs say; a batch
   * that would need more is refused, or fails when only a proof shows it (`MDM_OUT_OF_MEMORY`).
   */
  memory?: number;
  /** Lengths of payloads, as far as they are known before those arrive: a wrong one makes the batch refused. */
  payloadLengths?: readonly (number | undefined)[];
}

/** What one instruction did, as if it were the only one. */
export interface Step {
  /** Root and size after it. */
  state: State;
  /** Empty when the instruction has none. */
  output: Uint8Array;
  /** Undefined when none was asked for. */
  proof: Uint8Array | undefined;
}

/** How a batch ended. Only a committed one has changed the file; `cost` is what it is charged in every case. */
export type BatchResult =
  | { outcome: 'committed'; final: State; cost: Cost; steps: Step[] }
  /** Not begun: wrong initial state, over budget, or a mistake that inputs, sizes and payload lengths show. */
  | { outcome: 'refused'; final: State; cost: Cost; error: PgError }
  /** Begun, and reverted for an error. */
  | { outcome: 'failed'; final: State; cost: Cost; error: PgError }
  /** Begun, and reverted by an interrupt. */
  | { outcome: 'interrupted'; final: State; cost: Cost };

/**
 * The cost of a batch on a file of `size` bytes, and the file's size after it, from its instructions alone; throws what
 * makes it refused.
 */
export function costOf(instructions: readonly Instruction[], size: number): { cost: Cost; size: number } {
  const operations = decodeAll(instructions, size);
  const cost = operations.reduce((sum, operation) => addCost(sum, operation.cost), INIT_COST);
  return { cost, size: operations.at(-1)?.sizeAfter ?? size };
}

function decodeAll(instructions: readonly Instruction[], initialSize: number): Operation[] {
  let size = initialSize;
  return instructions.map((instruction) => {
    const operation = decodeInstruction(instruction, size);
    size = operation.sizeAfter;
    return operation;
  });
}

/**
 * Executes a batch on `file`, to the end and without giving way; `signal` is looked at between slices of about a
 * millisecond.
 */
export function executeBatch(
  file: CommittedFile,
  batch: Batch,
  payloads: readonly (Uint8Array | undefined)[],
  options: BatchOptions = {},
): BatchResult {
  const run = new BatchRun(file, batch, options);
  run.checkPayloads(payloads);
  for (let i = 0; run.next !== undefined; i++) for (const _ of run.step(payloads[i])) run.look();
  return run.finish();
}

interface Current {
  operation: Operation;
  tree: ProofSource;
  proof: Uint8Array | undefined;
  /** Bytes of payload that are in their place. */
  taken: number;
}

type Phase = 'running' | 'committed' | 'aborted';

/** A batch being executed: one `step` per instruction, then `finish`. */
export class BatchRun {
  readonly #file: CommittedFile;
  readonly #batch: Batch;
  readonly #operations: Operation[] = [];
  readonly #staged: StagedFile;
  readonly #steps: Step[] = [];
  readonly #signal: AbortSignal | undefined;
  /** The instruction that was begun and is not complete. */
  #current: Current | undefined;
  /** Memory that proofs may still take. */
  #memoryLeft = Infinity;
  #cost = INIT_COST;
  #phase: Phase = 'running';
  #error: PgError | undefined;
  #refused = false;

  constructor(file: CommittedFile, batch: Batch, options: BatchOptions = {}) {
    this.#file = file;
    this.#batch = batch;
    this.#signal = options.signal;
    try {
      this.#checkInitial();
      this.#operations = decodeAll(batch.instructions, batch.initial.size);
      const cost = this.#operations.reduce((sum, operation) => addCost(sum, operation.cost), INIT_COST);
      if (options.budget !== undefined && !withinBudget(cost, options.budget)) {
        throw machineError(
          'MDM_OVER_BUDGET',
          `the batch would cost ${words(cost)}; the budget is ${words(options.budget)}`,
        );
      }
      if (options.memory !== undefined) this.#planMemory(options.memory);
      if (options.payloadLengths !== undefined) this.#checkLengths(options.payloadLengths);
      this.#cost = cost;
    } catch (error) {
      this.#refuse(error);
    }
    this.#staged = new StagedFile(
      file,
      this.#operations.flatMap(({ readsSector }) => readsSector ?? []),
    );
    this.look();
    this.#signal?.addEventListener('abort', this.#onAbort, { once: true });
  }

  readonly #onAbort = (): void => void this.interrupt();

  #checkLengths(lengths: readonly (number | undefined)[]): void {
    if (lengths.length !== this.#operations.length) {
      throw machineError(
        'MDM_PAYLOAD_LENGTH',
        `${lengths.length} payloads for ${this.#operations.length} instructions`,
      );
    }
    for (const [i, { payloadLength }] of this.#operations.entries()) {
      const given = lengths[i];
      if (given !== undefined && given !== payloadLength) throw wrongLength(given, payloadLength);
    }
  }

  #planMemory(memory: number): void {
    const planned = this.#operations.reduce((sum, { cost, outputLength }) => sum + cost.written + outputLength, 0);
    if (planned > memory) throw outOfMemory(`the batch writes and reads ${planned} bytes at once`, memory);
    this.#memoryLeft = memory - planned;
  }

  /** What the batch is charged, whatever becomes of it from here on. */
  get cost(): Cost {
    return this.#cost;
  }

  /**
   * The instruction whose turn it is, and how much payload it needs; undefined when none is left or the batch has
   * ended.
   */
  get next(): { instruction: Instruction; payloadLength: number } | undefined {
    const index = this.#steps.length;
    const operation = this.#operations[index];
    if (this.#phase !== 'running' || operation === undefined) return undefined;
    return { instruction: this.#batch.instructions[index]!, payloadLength: operation.payloadLength };
  }

  /**
   * Asks for the batch to be reverted. Accepted while it runs, rejected once it is committed; asked again, it answers
   * the same. Neither is an error.
   */
  interrupt(): 'accepted' | 'rejected' {
    if (this.#phase === 'running') this.#phase = 'aborted';
    return this.#phase === 'aborted' ? 'accepted' : 'rejected';
  }

  /** Notices an interrupt that came by the signal. */
  look(): void {
    if (this.#signal?.aborted === true) this.interrupt();
  }

  /**
   * Refuses the batch unless there is one payload for each instruction, of the length its inputs say (undefined is
   * none).
   */
  checkPayloads(payloads: readonly (Uint8Array | undefined)[]): void {
    if (this.#phase !== 'running') return;
    try {
      this.#checkLengths(payloads.map((payload) => payload?.length ?? 0));
    } catch (error) {
      this.#refuse(error);
      this.#cost = INIT_COST; // what was planned does not count
    }
  }

  /** Whether it has neither ended nor been interrupted. */
  get isRunning(): boolean {
    return this.#phase === 'running';
  }

  /** Executes the next instruction slice by slice; stops where it is when the batch is interrupted. */
  *step(payload: Uint8Array | undefined): Generator<void, void> {
    const operation = this.#operations[this.#steps.length];
    if (this.#phase !== 'running' || operation === undefined) return;
    const given = payload?.length ?? 0;
    if (given !== operation.payloadLength) return this.#fail(wrongLength(given, operation.payloadLength));
    this.begin();
    if (payload !== undefined) yield* this.take(payload);
    yield* this.complete();
  }

  /** Begins the next instruction, whose payload comes by `take`: finds its tree and builds its proof. */
  begin(): void {
    const index = this.#steps.length;
    const operation = this.#operations[index];
    if (this.#phase !== 'running' || operation === undefined) return;
    const { proofRequired } = this.#batch.instructions[index]!;
    const { action } = operation;
    try {
      const tree = action?.open(this.#staged) ?? this.#staged;
      let proof: Uint8Array | undefined = proofRequired ? NO_BYTES : undefined;
      if (proofRequired && action !== undefined) {
        const plan = action.plan();
        const isLong = Number.isFinite(this.#memoryLeft) && proofLength(plan, this.#memoryLeft) > this.#memoryLeft;
        if (isLong) throw outOfMemory('the proofs are too long');
        proof = buildProof(plan, tree);
        this.#memoryLeft -= proof.length;
      }
      this.#current = { operation, tree, proof, taken: 0 };
    } catch (error) {
      this.#fail(error);
    }
  }

  /** Takes the next bytes of the payload, slice by slice; `MDM_PAYLOAD_LENGTH` when they are too many. */
  *take(chunk: Uint8Array): Generator<void, void> {
    const current = this.#current;
    if (this.#phase !== 'running' || current === undefined) return;
    const { payloadLength, action } = current.operation;
    try {
      if (current.taken + chunk.length > payloadLength) throw wrongLength('more', payloadLength);
      for (let at = 0; at < chunk.length; at += SLICE_BYTES) {
        const slice = chunk.subarray(at, at + SLICE_BYTES);
        this.#staged.write(action!.payloadAt! + current.taken, slice);
        current.taken += slice.length;
        yield;
        this.look();
        if (this.#interrupted()) return;
      }
    } catch (error) {
      this.#fail(error);
    }
  }

  /** Does the rest of the instruction that was begun, when its payload is there. */
  *complete(): Generator<void, void> {
    const current = this.#current;
    this.#current = undefined;
    this.look();
    if (this.#phase !== 'running' || current === undefined) return;
    const { operation, tree, proof, taken } = current;
    try {
      if (taken !== operation.payloadLength) throw wrongLength(taken, operation.payloadLength);
      let output: Uint8Array = NO_BYTES;
      if (operation.action !== undefined) {
        for (const part of [operation.action.execute?.(this.#staged, tree), this.#staged.rehash()]) {
          const done = part && (yield* this.#whileRunning(part));
          if (this.#interrupted()) return;
          output = done ?? output;
        }
      }
      this.#steps.push({ state: this.#staged.final, output, proof });
    } catch (error) {
      this.#fail(error);
    }
  }

  /** Ends the batch because a payload could not be had: `error` says why. */
  breakOff(error: unknown): void {
    this.look();
    if (isPgError(error)) return this.#fail(error);
    const why = error instanceof Error ? error.message : String(error);
    this.#fail(new PgError('MDM_PAYLOAD_BROKEN', `the payload could not be read: ${why}`, { cause: error }));
  }

  *#whileRunning(part: Generator<void, Uint8Array | void>): Generator<void, Uint8Array | undefined> {
    for (;;) {
      const { done, value } = part.next();
      if (done === true) return value ?? undefined;
      yield;
      this.look();
      if (this.#interrupted()) return undefined;
    }
  }

  #interrupted(): boolean {
    return this.#phase === 'aborted';
  }

  /** Commits, if every instruction was executed and nothing went wrong, and says how the batch ended. */
  finish(): BatchResult {
    this.look();
    if (this.#phase === 'running') {
      if (this.#steps.length < this.#operations.length) {
        this.#fail(
          machineError(
            'MDM_PAYLOAD_LENGTH',
            `${this.#steps.length} payloads for ${this.#operations.length} instructions`,
          ),
        );
      } else this.#commit();
    }
    this.#signal?.removeEventListener('abort', this.#onAbort);
    const cost = this.#cost;
    const final = this.#file.state;
    if (this.#error !== undefined) {
      return { outcome: this.#refused ? 'refused' : 'failed', final, cost, error: this.#error };
    }
    if (this.#phase === 'aborted') return { outcome: 'interrupted', final, cost };
    return { outcome: 'committed', final: this.#staged.final, cost, steps: this.#steps };
  }

  /** From here on interrupts are rejected, though the host may still fail and leave the file as it was. */
  #commit(): void {
    this.#phase = 'committed';
    try {
      if (!sameState(this.#staged.final, this.#batch.initial)) this.#file.commit(this.#staged);
    } catch (error) {
      this.#error = asPgError(error);
    }
  }

  #checkInitial(): void {
    const { initial } = this.#batch;
    const { state } = this.#file;
    if (!sameState(initial, state)) {
      throw machineError('MDM_WRONG_STATE', `the file is ${describe(state)}, not ${describe(initial)}`);
    }
  }

  #refuse(error: unknown): void {
    this.#refused = true;
    this.#fail(error);
  }

  #fail(error: unknown): void {
    const known = asPgError(error);
    // An interrupt that was accepted has reverted the batch already, whatever went wrong after it.
    if (this.#phase === 'running') this.#error = known;
    this.#phase = 'aborted';
  }
}

function sameState(a: State, b: State): boolean {
  return a.size === b.size && Buffer.compare(a.root, b.root) === 0;
}

const wrongLength = (given: number | string, wanted: number): PgError =>
  machineError('MDM_PAYLOAD_LENGTH', `the payload has ${given} bytes; the inputs say ${wanted}`);

const outOfMemory = (what: string, memory?: number): PgError =>
  new PgError('MDM_OUT_OF_MEMORY', memory === undefined ? what : `${what}; there is memory for ${memory}`);

/** The world's errors as they are; our own bugs go on up, except that memory for an output may not be there. */
function asPgError(error: unknown): PgError {
  if (isPgError(error)) return error;
  if (error instanceof RangeError && /allocation/i.test(error.message)) {
    return new PgError('MDM_OUT_OF_MEMORY', 'there is no memory for what the instruction reads', { cause: error });
  }
  throw error;
}

function describe({ root, size }: State): string {
  return `${Buffer.from(root).toString('hex').slice(0, 12)} of ${size} bytes`;
}

function words(cost: Cost): string {
  const [accesses, read, written, compute] = [cost.accesses, cost.read, cost.written, cost.compute].map((n) =>
    Number.isFinite(n) ? String(n) : 'any number of',
  );
  return `${accesses} accesses, ${read} B read, ${written} B written, ${compute} compute`;
}
