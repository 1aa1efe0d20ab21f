import type { Entry } from '../log/entry.ts';
import * as E from './entries.ts';
import { isDirectory } from './node.ts';
import type { State } from './state.ts';
import { RENAME_EXCHANGE } from './view.ts';

/** What an entry has to do with, beyond access times. */
export interface Effects {
  /** Inodes whose contents or attributes it changes, other than a directory's by a name in it. */
  inodes: number[];
  /** Names that it makes, changes or takes away: directory and name. */
  names: { dir: number; name: string }[];
  /** Inodes whose contents it takes. */
  reads: number[];
  /** Directories that lose their place for good, and those that go to another directory. */
  gone: number[];
  moved: number[];
}

const ATIME_ONLY = E.SET_ATIME | E.SET_ATIME_NOW | E.KEEP_CTIME;

/** The effects of an entry on the state before it is applied. */
export function effectsOf(state: State, entry: Entry, fields: E.FieldReader): Effects {
  const effects: Effects = { inodes: [], names: [], reads: [], gone: [], moved: [] };
  fields.start(entry.bytes, entry.view, entry.fieldsStart, entry.fieldsEnd);
  const first = fields.u64();
  switch (entry.type) {
    case E.SETATTR:
      if ((fields.u32() & ~ATIME_ONLY) !== 0) effects.inodes.push(first);
      return effects;
    case E.CREATE: {
      const ino = fields.u64();
      for (let skipped = 0; skipped < 4; skipped++) fields.u32();
      const name = fields.text();
      effects.inodes.push(ino);
      if (name !== '') effects.names.push({ dir: first, name });
      return effects;
    }
    case E.LINK:
      effects.inodes.push(first);
      effects.names.push({ dir: fields.u64(), name: fields.text() });
      return effects;
    case E.UNLINK:
      loses(state, effects, first, fields.text());
      return effects;
    case E.RENAME: {
      const newDir = fields.u64();
      fields.u64();
      const flags = fields.u32();
      const name = fields.text(fields.u16());
      renames(state, effects, { dir: first, name }, { dir: newDir, name: fields.text() }, flags);
      return effects;
    }
    // The cleaner's: the bytes are the same in another place.
    case E.MOVE:
      return effects;
    case E.COPY:
      effects.reads.push(first);
      effects.inodes.push(fields.u64());
      return effects;
    default:
      effects.inodes.push(first);
      return effects;
  }
}

/** A name goes; what it named loses it. */
function loses(state: State, effects: Effects, dir: number, name: string): void {
  const ino = state.lookup(dir, name)!;
  effects.names.push({ dir, name });
  effects.inodes.push(ino);
  if (isDirectory(state.peek(ino).mode)) effects.gone.push(ino);
}

function renames(
  state: State,
  effects: Effects,
  from: Effects['names'][number],
  to: Effects['names'][number],
  flags: number,
): void {
  const moves = (ino: number): void => {
    effects.inodes.push(ino);
    if (from.dir !== to.dir && isDirectory(state.peek(ino).mode)) effects.moved.push(ino);
  };
  effects.names.push(from, to);
  moves(state.lookup(from.dir, from.name)!);
  const target = state.lookup(to.dir, to.name);
  if (target === undefined) return;
  if (flags & RENAME_EXCHANGE) moves(target);
  else loses(state, effects, to.dir, to.name);
}
