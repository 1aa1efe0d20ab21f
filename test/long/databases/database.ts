import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { childrenOf, gone, kill } from '../holder.ts';

/**
 * A database on the mount and who writes to it: transactions are numbered from 1, one after the other, each of several rows that follow from its number. `acknowledged` is
 * kept here, outside.
 */
export interface Database {
  readonly name: string;
  /** Transactions whose commit was answered. */
  readonly acknowledged: number;
  /** Why it does not go on; undefined while it does. */
  readonly failure: string | undefined;
  /** Makes it: once. */
  create(): Promise<void>;
  /** Starts it as after a crash, and fails unless every acknowledged transaction is there as a whole, at most one that was not, and its own checks find nothing. */
  startAndCheck(): Promise<void>;
  /** Begins to write. */
  load(): void;
  /** kill -9 of all of it; resolves when it is gone. */
  kill(): Promise<void>;
}

/** Rows of a transaction. */
export const rowsOf = (transaction: number): number => 1 + (transaction % 5);

/** Fails unless `found` transactions, none of which is missing in between, are what must be after a crash. */
export function checkCount(name: string, found: number, acknowledged: number): void {
  assert.ok(found >= acknowledged, `${name}: ${acknowledged} transactions were acknowledged, ${found} are there`);
  assert.ok(found <= acknowledged + 1, `${name}: ${found} transactions are there, ${acknowledged} were acknowledged`);
}

/** What a program has said on stderr, its last words. */
export function lastWords(child: ChildProcess): () => string {
  let text = '';
  child.stderr?.setEncoding('utf8').on('data', (chunk: string) => (text = (text + chunk).slice(-4000)));
  return () => text;
}

export const exited = (child: ChildProcess): Promise<void> =>
  child.exitCode !== null || child.signalCode !== null
    ? Promise.resolve()
    : new Promise((resolve) => child.once('exit', () => resolve()));

/** kill -9 of a program and of those that it has started; resolves when they are gone. */
export async function killWithChildren(program: ChildProcess): Promise<void> {
  if (program.pid === undefined) return;
  const children = childrenOf(program.pid);
  program.kill('SIGKILL');
  for (const pid of children) kill(pid);
  await exited(program);
  await Promise.all(children.map(gone));
}
