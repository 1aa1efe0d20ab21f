import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { openLog } from '../../../fs/log/log.ts';
import { namespaceFor, prove, resolveTarget, type Target } from '../../../fs/proof/prove.ts';
import { type Snapshot, takeSnapshot } from '../../../fs/proof/snapshot.ts';
import { logSource } from '../../../fs/proof/source.ts';
import type { Verified } from '../../../fs/proof/proof-file.ts';
import type { Fixture } from '../view/fixture.ts';

export const LABEL = 'container/test';

/** A log that nobody has open, its files as it stands, and proofs about them. */
export class Prover {
  readonly fixture: Fixture;
  readonly snapshot: Snapshot;
  /** Size and root of the log, the claim included. */
  readonly size: number;
  readonly root: Uint8Array;
  readonly #dir: string;

  constructor(fixture: Fixture, name: string, label = LABEL) {
    this.fixture = fixture;
    this.#dir = join(fixture.dir, name);
    this.snapshot = takeSnapshot(fixture.store, fixture.treeRoot, this.#dir);
    const { root } = namespaceFor(this.snapshot.state, { names: [], inos: [] });
    const log = openLog(this.#dir);
    this.size = log.appendNamespace({ size: this.snapshot.size, epoch: log.epoch, root, label });
    this.root = log.position().root;
    log.close();
  }

  target(path: string, follow = false): Target {
    return resolveTarget(this.snapshot.state, path, follow);
  }

  /** The proof of a path and perhaps a range, as one piece of bytes. */
  prove(path: string, range?: { start: number; end: number }, follow = false): Buffer {
    const { state, tree } = this.snapshot;
    const target = this.target(path, follow);
    const fd = openSync(join(this.#dir, 'log'), 'r');
    try {
      const namespace = namespaceFor(state, target);
      const evidence = { store: this.fixture.store, tree, state, namespace, log: logSource(fd, this.size, this.#dir) };
      return Buffer.concat(prove(evidence, target, range).pieces);
    } finally {
      closeSync(fd);
    }
  }
}

/** The bytes that a proof shows. */
export function bytesOf({ segments, question }: Verified): Buffer {
  const start = question.range?.start ?? 0;
  const bytes = Buffer.alloc((question.range?.end ?? 0) - start);
  for (const segment of segments)
    if (segment.from !== undefined)
      bytes.set(segment.from.tree.read(segment.from.at, segment.length), segment.start - start);
  return bytes;
}
