import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  closeSync,
  constants,
  copyFileSync,
  existsSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  renameSync,
  rmdirSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import koffi from 'koffi';
import { mapSharedMemory } from '../../../fs/shared-memory.ts';

/**
 * A program that does what programs do to files below argv[2], in several threads, until its stdin ends, and compares the outcome of every system call, and at the
 * end every byte, with what it knows must be. It says `begun`, and at the end a line for each file that stays, `sha256 path`, and one `done N` with the steps that it made. Any surprise
 * is an exception, and exit code 1.
 */
type Numbers = (below: number) => number;

/** One step of a workload; and what is left to check when the last is done. */
interface Workload {
  step(): void;
  finish(): void;
}

function numbersFrom(seed: number): Numbers {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** Appends, some of them synced, to a file that is read again and again. */
function appender(dir: string, random: Numbers): Workload {
  const path = join(dir, 'log');
  const fd = openSync(path, 'a+');
  let known = Buffer.alloc(0);
  return {
    step() {
      const more = Buffer.alloc(1 + random(6000), 65 + random(50));
      assert.equal(writeSync(fd, more), more.length);
      known = Buffer.concat([known, more]);
      if (random(2) === 0) fsyncSync(fd);
      assert.equal(fstatSync(fd).size, known.length);
      if (known.length < 4 << 20) return;
      assert.ok(readFileSync(path).equals(known));
      ftruncateSync(fd, 0);
      known = Buffer.alloc(0);
    },
    finish() {
      fsyncSync(fd);
      closeSync(fd);
      assert.ok(readFileSync(path).equals(known));
    },
  };
}

/** Names that come, move and go: a step done twice, or not at all, meets EEXIST or ENOENT. */
function names(dir: string, random: Numbers): Workload {
  const known = new Map<string, string>();
  let next = 0;
  const some = (): string | undefined => [...known.keys()][random(known.size)];
  const make = (): void => {
    const name = `n${next++}`;
    const kind = random(4);
    if (kind === 0) mkdirSync(join(dir, name));
    else if (kind === 1) symlinkSync(`to ${name}`, join(dir, name));
    else writeFileSync(join(dir, name), name, { flag: 'wx' });
    known.set(name, kind === 0 ? 'd' : kind === 1 ? `l${name}` : `f${name}`);
  };
  const move = (name: string): void => {
    const to = `n${next++}`;
    renameSync(join(dir, name), join(dir, to));
    known.set(to, known.get(name)!);
    known.delete(name);
  };
  const drop = (name: string): void => {
    if (known.get(name) === 'd') rmdirSync(join(dir, name));
    else unlinkSync(join(dir, name));
    known.delete(name);
  };
  const twin = (name: string): void => {
    if (!known.get(name)!.startsWith('f')) return;
    const to = `n${next++}`;
    linkSync(join(dir, name), join(dir, to));
    known.set(to, known.get(name)!);
  };
  return {
    step() {
      const name = some();
      const what = random(8);
      if (name === undefined || (what < 3 && known.size < 300)) make();
      else if (what < 5) move(name);
      else if (what < 6) twin(name);
      else drop(name);
    },
    finish() {
      assert.deepEqual(readdirSync(dir).toSorted(), [...known.keys()].toSorted());
      const links = new Map<string, number>();
      for (const what of known.values()) links.set(what, (links.get(what) ?? 0) + 1);
      for (const [name, what] of known) {
        const path = join(dir, name);
        const { nlink } = lstatSync(path);
        if (what === 'd') assert.deepEqual(readdirSync(path), []);
        else if (what.startsWith('l')) assert.equal(readlinkSync(path), `to ${what.slice(1)}`);
        else assert.deepEqual([readFileSync(path, 'utf8'), nlink], [what.slice(1), links.get(what)]);
      }
    },
  };
}

/** Stores into a mapped file, which read(2) sees too. */
function mapper(dir: string, random: Numbers): Workload {
  const BYTES = 1 << 20;
  const path = join(dir, 'mapped');
  const fd = openSync(path, 'w+');
  ftruncateSync(fd, BYTES);
  const map = Buffer.from(mapSharedMemory(fd, BYTES));
  const known = Buffer.alloc(BYTES);
  const msync = koffi.load(null).func('int msync(void *, size_t, int)');
  const MS_SYNC = 4;
  return {
    step() {
      const at = random(BYTES - 9000);
      const bytes = Buffer.alloc(1 + random(9000), random(256));
      bytes.copy(map, at);
      bytes.copy(known, at);
      if (random(3) === 0) assert.equal(msync(map, BYTES, MS_SYNC), 0);
      const into = Buffer.alloc(4096);
      const from = random(BYTES - 4096);
      assert.equal(readSync(fd, into, 0, 4096, from), 4096);
      assert.ok(into.equals(known.subarray(from, from + 4096)));
    },
    finish() {
      assert.equal(msync(map, BYTES, MS_SYNC), 0);
      closeSync(fd);
      assert.ok(readFileSync(path).equals(known));
    },
  };
}

/** A database with a write-ahead log. */
function database(dir: string, random: Numbers): Workload {
  const db = new DatabaseSync(join(dir, 'db'));
  db.exec('pragma journal_mode=wal; pragma synchronous=full; create table t(i integer primary key, v blob)');
  const insert = db.prepare('insert into t values(?, ?)');
  let rows = 0;
  return {
    step() {
      db.exec('begin');
      for (let i = random(20); i >= 0; i--) insert.run(rows++, Buffer.alloc(random(3000), rows));
      db.exec('commit');
    },
    finish() {
      assert.deepEqual({ ...db.prepare('select count(*) n, max(i) m from t').get() }, { n: rows, m: rows - 1 });
      assert.equal(db.prepare('pragma integrity_check').get()!['integrity_check'], 'ok');
      db.close();
    },
  };
}

/** A tree from an archive, compared and removed. */
function unpacker(dir: string): Workload {
  const from = join(import.meta.dirname, '../../../docs');
  const archive = execFileSync('tar', ['-C', from, '-cf', '-', '.'], { maxBuffer: 64 << 20 });
  return {
    step() {
      const to = join(dir, 'tree');
      mkdirSync(to);
      execFileSync('tar', ['-C', to, '-xf', '-'], { input: archive });
      execFileSync('diff', ['-r', from, to]);
      rmSync(to, { recursive: true });
      assert.ok(!existsSync(to));
    },
    finish() {
      execFileSync('tar', ['-C', dir, '-xf', '-'], { input: archive });
      execFileSync('diff', ['-r', from, dir]);
    },
  };
}

/** Copies, cuts, and files without a name. */
function copier(dir: string, random: Numbers): Workload {
  let known = Buffer.alloc(0);
  return {
    step() {
      const [a, b] = [join(dir, 'a'), join(dir, 'b')];
      known = Buffer.alloc(random(300_000), 1 + random(255));
      writeFileSync(a, known);
      copyFileSync(a, b, constants.COPYFILE_EXCL);
      const fd = openSync(b, 'r+');
      unlinkSync(b);
      const size = random(known.length + 5000);
      ftruncateSync(fd, size);
      assert.deepEqual([fstatSync(fd).size, fstatSync(fd).nlink], [size, 0]);
      const into = Buffer.alloc(size);
      for (let done = 0; done < size;) done += readSync(fd, into, done, size - done, done);
      const expected = Buffer.alloc(size);
      known.copy(expected);
      assert.ok(into.equals(expected), 'the copy');
      execFileSync('cp', ['--sparse=always', a, b]);
      assert.ok(readFileSync(b).equals(known), 'cp');
      unlinkSync(b);
      closeSync(fd);
    },
    finish() {
      assert.ok(readFileSync(join(dir, 'a')).equals(known));
    },
  };
}

const WORKLOADS = { appender, names, mapper, database, unpacker, copier };

function* filesBelow(dir: string): Generator<string> {
  for (const entry of readdirSync(dir, { withFileTypes: true })) {
    const path = join(dir, entry.name);
    if (entry.isDirectory()) yield* filesBelow(path);
    else if (entry.isFile()) yield path;
  }
}

/** Every regular file below, as the program and the test after it say it: sha256 and path. */
export const manifest = (base: string): string[] =>
  [...filesBelow(base)]
    .map((path) => `${createHash('sha256').update(readFileSync(path)).digest('hex')} ${path.slice(base.length)}`)
    .toSorted();

async function main(base: string): Promise<void> {
  const stop = new SharedArrayBuffer(4);
  console.log('begun');
  process.stdin.on('end', () => Atomics.store(new Int32Array(stop), 0, 1)).resume();
  const steps = await Promise.all(
    Object.keys(WORKLOADS).map((name, i) => {
      mkdirSync(join(base, name));
      const worker = new Worker(import.meta.filename, {
        workerData: { name, dir: join(base, name), seed: i + 1, stop },
      });
      return new Promise<number>((resolve, reject) => {
        worker.once('message', resolve);
        worker.once('error', (error) => reject(new Error(name, { cause: error })));
      });
    }),
  );
  for (const line of manifest(base)) console.log(line);
  console.log(`done ${steps.reduce((sum, n) => sum + n, 0)}`);
}

if (!isMainThread) {
  const { name, dir, seed, stop } = workerData as {
    name: keyof typeof WORKLOADS;
    dir: string;
    seed: number;
    stop: SharedArrayBuffer;
  };
  const workload = WORKLOADS[name](dir, numbersFrom(seed));
  let steps = 0;
  do workload.step();
  while (++steps > 0 && Atomics.load(new Int32Array(stop), 0) === 0);
  workload.finish();
  parentPort!.postMessage(steps);
} else if (process.argv[2] !== undefined && import.meta.filename === process.argv[1]) {
  await main(process.argv[2]);
}
