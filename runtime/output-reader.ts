import { existsSync, watch } from 'node:fs';
import { open, stat, type FileHandle } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { oneOf, shaped, text as isText } from '../store/shape.ts';

/** One line (or piece of a long one) that a container wrote. */
export interface OutputLine {
  log: string;
  stream: 'stdout' | 'stderr';
  /** RFC 3339 with nanoseconds. */
  time: string;
}

const LINE = shaped({ log: isText, stream: oneOf('stdout', 'stderr'), time: isText });
const BLOCK_BYTES = 64 * 1024;
/** A piece of 16 KiB, each byte of it as `\\u0000`, and its members. */
const LINE_MAX_BYTES = 1 << 20;
/** Should a change go unnoticed (inotify is lossy on some filesystems), it is seen this much later. */
const LOOK_AGAIN_MS = 500;

/** The files of an output log, the oldest first: `output.log.2`, `output.log.1`, `output.log`. */
function filesOf(path: string): string[] {
  const older: string[] = [];
  for (let i = 1; existsSync(`${path}.${i}`); i++) older.unshift(`${path}.${i}`);
  return existsSync(path) ? [...older, path] : older;
}

/** The offset from which a file's last `lines` lines begin, and how many there are. */
async function tailOffset(file: FileHandle, size: number, lines: number): Promise<{ offset: number; found: number }> {
  const block = Buffer.alloc(BLOCK_BYTES);
  let found = 0;
  for (let end = size; end > 0;) {
    const start = Math.max(0, end - BLOCK_BYTES);
    const { bytesRead } = await file.read(block, 0, end - start, start);
    for (let i = bytesRead - 1; i >= 0; i--) {
      // The line end at the file's end ends the last line; it begins none.
      if (block[i] !== 10 || start + i === size - 1) continue;
      if (++found === lines) return { offset: start + i + 1, found };
    }
    end = start;
  }
  return { offset: 0, found: size === 0 ? 0 : found + 1 };
}

/** Reads whole lines from `offset` on; where the last whole one ended. */
async function readLines(file: FileHandle, from: number, emit: (line: OutputLine) => void): Promise<number> {
  let offset = from;
  let pending = Buffer.alloc(0);
  const block = Buffer.alloc(BLOCK_BYTES);
  for (;;) {
    const { bytesRead } = await file.read(block, 0, BLOCK_BYTES, offset + pending.length);
    if (bytesRead === 0) return offset;
    pending = Buffer.concat([pending, block.subarray(0, bytesRead)]);
    let start = 0;
    for (let end = pending.indexOf(10); end >= 0; end = pending.indexOf(10, start)) {
      const line = parseLine(pending.toString('utf8', start, end));
      if (line !== undefined) emit(line);
      start = end + 1;
    }
    offset += start;
    pending = pending.subarray(start);
    if (pending.length <= LINE_MAX_BYTES) continue;
    // No line that was ever written: what is left of it is passed over as a torn one.
    offset += pending.length;
    pending = Buffer.alloc(0);
  }
}

/** A line torn by a crash is passed over. */
function parseLine(text: string): OutputLine | undefined {
  try {
    const line = JSON.parse(text) as OutputLine;
    return LINE(line) === undefined ? line : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Hands the lines of a container's output to `emit`: all, or the last `tail`. With `until`, it goes on with what is written from
 * then on, through rotations, until `until` has resolved and everything has been read.
 */
export async function readOutput(
  path: string,
  tail: number | undefined,
  emit: (line: OutputLine) => void,
  until?: Promise<unknown>,
): Promise<void> {
  const files = filesOf(path);
  const starts = new Map<string, number>();
  let wanted = tail;
  for (const name of files.toReversed()) {
    if (wanted === undefined) break;
    const file = await open(name);
    const size = (await file.stat()).size;
    const { offset, found } = wanted === 0 ? { offset: size, found: 0 } : await tailOffset(file, size, wanted);
    await file.close();
    starts.set(name, offset);
    wanted -= found;
  }
  let last: { file: FileHandle; ino: number; offset: number } | undefined;
  for (const name of files) {
    await last?.file.close();
    const file = await open(name);
    const offset = await readLines(file, starts.get(name) ?? 0, emit);
    last = { file, ino: (await file.stat()).ino, offset };
  }
  if (until !== undefined) last = await follow(path, last, emit, until);
  await last?.file.close();
}

type Position = { file: FileHandle; ino: number; offset: number } | undefined;

async function follow(
  path: string,
  begin: Position,
  emit: (line: OutputLine) => void,
  until: Promise<unknown>,
): Promise<Position> {
  let at = begin;
  let over = false;
  let wake: (() => void) | undefined;
  const ended = until.then(() => {
    over = true;
    wake?.();
  });
  const watcher = watch(dirname(path), (_event, name) => {
    if (name === basename(path)) wake?.();
  });
  try {
    for (;;) {
      const last = over;
      if (at !== undefined) at.offset = await readLines(at.file, at.offset, emit);
      const now = await stat(path).catch(() => undefined);
      if (now !== undefined && now.ino !== at?.ino) {
        // Put aside: what came to the old file before is read first, then the new one from its beginning.
        if (at !== undefined) await readLines(at.file, at.offset, emit);
        await at?.file.close();
        at = { file: await open(path), ino: now.ino, offset: 0 };
        continue;
      }
      if (last) return at;
      if (over) continue;
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, LOOK_AGAIN_MS);
        wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  } finally {
    watcher.close();
    await ended;
  }
}
