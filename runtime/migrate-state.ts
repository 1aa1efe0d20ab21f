import assert from 'node:assert/strict';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PgError } from '../mdm/error.ts';
import { containerDir, type Roots } from '../store/paths.ts';
import { flag, nullable, oneOf, shaped, text, uint } from '../store/shape.ts';
import { readJson, writeJsonAtomic } from './json-file.ts';
import { flock, LOCK_EX } from './native.ts';
import type { ContainerRecord } from './record.ts';

/**
 * Who may run a container: `containers/<id>/ownership.json`, always written durably. A container that never moved has no such file: it is owned
 * here, at epoch 0. The states and what takes one to the next are drawn in docs/protocols/migrate.md.
 */
export interface Ownership {
  formatVersion: 1;
  /** How often the container had been handed over. Whoever holds the highest epoch's release may run it. */
  epoch: number;
  /**
   * owner: it may run here. replica: a copy on its way in; the peer owns it. released: handed over to the peer at this epoch; what is
   * here is a copy that may lag, and never runs again unless the peer gives the container back.
   */
  role: 'owner' | 'replica' | 'released';
  /** The node it comes from, or went to. */
  peer: { id: string; name: string } | null;
  /** The release of this epoch: what makes this node the owner, or the peer. Signed by who was the owner before. */
  release: SignedRelease | null;
  /** released: the peer has said that it owns the container now. */
  settled: boolean;
  /** owner: a move that has begun. Its process may be gone: then the move is void. */
  moving: Moving | null;
  /** owner: taken over from a node where it ran, and not started here yet. */
  startDue: boolean;
}

/** A release as it is kept and sent: the envelope's bytes and their ed25519 signature, base64. */
export interface SignedRelease {
  envelope: string;
  signature: string;
}

export interface Moving {
  /** Name of the peer it goes to. */
  to: string;
  /** The process that moves it: its id, and its start time in clock ticks since boot (proc(5), field 22 of stat). */
  pid: number;
  startTicks: string;
  /** It ran before, and is to run again if the move comes to nothing. */
  wasRunning: boolean;
}

const NEVER_MOVED: Ownership = {
  formatVersion: 1,
  epoch: 0,
  role: 'owner',
  peer: null,
  release: null,
  settled: false,
  moving: null,
  startDue: false,
};

const OWNERSHIP = shaped({
  formatVersion: oneOf(1),
  epoch: uint,
  role: oneOf('owner', 'replica', 'released'),
  peer: nullable(shaped({ id: text, name: text })),
  release: nullable(shaped({ envelope: text, signature: text })),
  settled: flag,
  moving: nullable(shaped({ to: text, pid: uint, startTicks: text, wasRunning: flag })),
  startDue: flag,
});

const ownershipPath = (roots: Roots, id: string): string => join(containerDir(roots, id), 'ownership.json');

/** Held by the one process that moves a container out. */
export const moveLockPath = (roots: Roots, id: string): string => join(containerDir(roots, id), 'move.lock');

/** Who may run the container. BAD_RECORD when a newer pg wrote it: then nobody here may. */
export function readOwnership(roots: Roots, id: string): Ownership {
  const version = readJson<Ownership>(ownershipPath(roots, id))?.formatVersion;
  if (Number.isSafeInteger(version) && version !== 1) {
    throw new PgError('BAD_RECORD', `container ${id.slice(0, 12)}: its ownership was written by a newer pg`, {
      hint: 'update pg on this machine',
    });
  }
  return readJson<Ownership>(ownershipPath(roots, id), OWNERSHIP) ?? NEVER_MOVED;
}

/**
 * Changes it, on disk when this returns. `change` sees what it is now, and may answer undefined: leave it so. Several processes may do so at once:
 * each sees what the others have done. Returns what it is then.
 */
export function changeOwnership(
  roots: Roots,
  id: string,
  change: (now: Ownership) => Partial<Ownership> | undefined,
): Ownership {
  // Held for a moment only, and by nobody who waits for anything: so it may block.
  const fd = openSync(join(containerDir(roots, id), 'ownership.lock'), 'a', 0o600);
  try {
    flock(fd, LOCK_EX);
    const now = readOwnership(roots, id);
    const changed = change(now);
    if (changed === undefined) return now;
    const next = { ...now, ...changed };
    assert.ok(next.epoch >= now.epoch, 'an epoch never comes back');
    writeJsonAtomic(ownershipPath(roots, id), next, true);
    return next;
  } finally {
    closeSync(fd);
  }
}

/**
 * For whoever is about to run the container, under its lock. CONTAINER_MOVED (released), CONTAINER_IS_COPY (a replica), CONTAINER_MOVING
 * (a living process is moving it away).
 */
export function requireOwner(roots: Roots, id: string, name: string): void {
  const ownership = readOwnership(roots, id);
  const peer = ownership.peer?.name ?? 'another node';
  if (ownership.role === 'released') {
    throw new PgError(
      'CONTAINER_MOVED',
      `container ${name} has moved to node ${peer}: what is left here is a copy that cannot run`,
      {
        hint: ownership.settled
          ? `run it on ${peer}, or move it back from there: pg migrate ${name} NODE`
          : `${peer} has not confirmed the move: pg migrate ${name} ${peer} settles it`,
      },
    );
  }
  if (ownership.role === 'replica') {
    throw new PgError('CONTAINER_IS_COPY', `container ${name} belongs to node ${peer}: the copy here cannot run`, {
      hint: `finish the move on ${peer}: pg migrate ${name} NODE`,
    });
  }
  if (ownership.moving !== null && isMoverAlive(ownership.moving)) {
    throw new PgError('CONTAINER_MOVING', `container ${name} is being moved to node ${ownership.moving.to}`, {
      hint: 'wait for the move to end; if it fails the container starts again by itself',
    });
  }
}

/** Whether the container is to be removed when it ends (`--rm`): not while it is stopped only to be moved, nor what a move has left here. */
export function removesItself(roots: Roots, record: ContainerRecord): boolean {
  if (!record.config.autoRemove) return false;
  const { role, moving } = readOwnership(roots, record.id);
  return role === 'owner' && moving === null;
}

/** What a listing says instead of the status of a container that is not owned here; undefined when it is. */
export function describeAbsence(ownership: Ownership): string | undefined {
  const peer = ownership.peer?.name ?? '?';
  if (ownership.role === 'released') return ownership.settled ? `moved to ${peer}` : `moved to ${peer} (unconfirmed)`;
  if (ownership.role === 'replica') return `copy of ${peer}'s`;
  return undefined;
}

/** This process, as the mover of a container. */
export function movingTo(peer: string, wasRunning: boolean): Moving {
  return { to: peer, pid: process.pid, startTicks: startTicksOf(process.pid) ?? '', wasRunning };
}

/** Whether the process that was moving the container still is. */
export function isMoverAlive(moving: Moving): boolean {
  return startTicksOf(moving.pid) === moving.startTicks;
}

/** Start time of a process (proc(5): field 22 of stat, counted after the parenthesised name), or undefined if there is none. */
export function startTicksOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    // A zombie has ended, though its parent has not noticed.
    return fields[0] === 'Z' ? undefined : fields[19];
  } catch {
    return undefined;
  }
}
