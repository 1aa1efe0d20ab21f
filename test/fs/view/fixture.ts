import { closeSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { buildTree } from '../../../layers/build.ts';
import { MergedTree } from '../../../layers/merge.ts';
import { openTree, type Tree } from '../../../layers/tree.ts';
import { type Log, openLog } from '../../../fs/log/log.ts';
import { openView } from '../../../fs/view/open-view.ts';
import type { Caller, View } from '../../../fs/view/view.ts';
import { openStore, type Store } from '../../../store/store.ts';

export const ROOT_CALLER: Caller = { uid: 0, gid: 0, pid: 1 };

/** What a file of the fixture's image is. Paths are without the leading slash. */
export type ImageFile =
  | { path: string; kind: 'dir'; mode: number }
  | { path: string; kind: 'file'; mode: number; data: Buffer; xattrs?: Record<string, Buffer> }
  | { path: string; kind: 'link'; to: string }
  | { path: string; kind: 'symlink'; target: string };

export const MTIME_SEC = 1_600_000_000;

/** A real store in a temporary directory, with an image made of the files given, and logs on it. */
export class Fixture {
  readonly dir = mkdtempSync('/var/tmp/pg-test-');
  readonly store: Store;
  treeRoot: Uint8Array | null = null;
  tree: Tree;

  constructor() {
    this.store = openStore({ data: join(this.dir, 'data'), run: join(this.dir, 'run'), config: join(this.dir, 'etc') });
    this.tree = openTree(this.store, null);
  }

  /** Imports the files as an image tree and opens it. */
  async image(files: readonly ImageFile[]): Promise<void> {
    const merged = new MergedTree();
    const rows = new Map<string, number>([['', 0]]);
    const writer = this.store.writer('test');
    const contents: { row: number; ref: Promise<{ root: Uint8Array }> }[] = [];
    for (const file of files) {
      const slash = file.path.lastIndexOf('/');
      const parent = rows.get(file.path.slice(0, Math.max(0, slash)))!;
      const name = file.path.slice(slash + 1);
      if (file.kind === 'link') {
        merged.link(parent, name, rows.get(file.to)!, 0);
        continue;
      }
      const type = { dir: 0o040000, file: 0o100000, symlink: 0o120000 }[file.kind];
      const mode = file.kind === 'symlink' ? 0o777 : file.mode;
      const xattrs = file.kind === 'file' && file.xattrs ? new Map(Object.entries(file.xattrs)) : undefined;
      const row = merged.add({ mode: type | mode, uid: 0, gid: 0, mtimeSec: MTIME_SEC, mtimeNsec: 5, xattrs });
      merged.link(parent, name, row, 0);
      rows.set(file.path, row);
      if (file.kind === 'symlink') {
        merged.setSymlink(row, Buffer.from(file.target, 'latin1'));
        merged.setSize(row, file.target.length);
      }
      if (file.kind === 'file') {
        merged.setSize(row, file.data.length);
        contents.push({ row, ref: (await writer.put(file.data.length, [file.data])).ref });
      }
    }
    await writer.flush();
    for (const { row, ref } of contents) merged.setRoot(row, (await ref).root);
    this.treeRoot = buildTree(this.store, merged);
    await writer.finish();
    this.tree = openTree(this.store, this.treeRoot);
  }

  log(name: string): Log {
    const base = this.treeRoot === null ? {} : { base: this.treeRoot };
    return openLog(join(this.dir, name), { create: true, ...base });
  }

  view(name: string): View {
    return openView(this.tree, this.store, this.log(name));
  }

  async remove(): Promise<void> {
    await this.store.close();
    rmSync(this.dir, { recursive: true, force: true });
  }
}

/** Logs of a suite's fixture, each with a directory of its own. */
export interface FixtureLogs {
  /** A name that no log has yet. */
  fresh(): string;
  dirOf(name: string): string;
  /** What a view's process leaves behind that is killed: what it flushed, and no checkpoint. */
  crash(view: View): void;
}

/** One fixture for all tests of a suite, with an image of these files; `take` gets it before the first. */
export function useFixture(files: readonly ImageFile[], take: (fixture: Fixture) => void): FixtureLogs {
  let fixture: Fixture | undefined;
  let logs = 0;
  before(async () => {
    fixture = new Fixture();
    if (files.length > 0) await fixture.image(files);
    take(fixture);
  });
  after(() => fixture?.remove());
  return {
    fresh: () => `log-${logs++}`,
    dirOf: (name) => join(fixture!.dir, name),
    crash: (view) => {
      view.flush();
      closeSync(view.logFd());
    },
  };
}

/** Everything that can be seen of a view, as text lines that two equal states share: names, attributes, contents; hard links by first path. */
export function dump(view: View, withTimes = false): string[] {
  const lines: string[] = [];
  const first = new Map<number, string>();
  const visit = (ino: number, path: string): void => {
    const attr = view.getattr(ino);
    const known = first.get(ino);
    if (known !== undefined) {
      lines.push(`${path} = ${known}`);
      return;
    }
    first.set(ino, path);
    const times = withTimes
      ? ` ${attr.mtimeSec}.${attr.mtimeNsec} ${attr.ctimeSec}.${attr.ctimeNsec} ${attr.btimeSec}.${attr.btimeNsec} ${ino}`
      : '';
    const type = attr.mode & 0o170000;
    const size = type === 0o040000 ? 0 : attr.size;
    const head = `${path || '/'} ${attr.mode.toString(8)} ${attr.nlink} ${attr.uid}:${attr.gid} ${attr.rdev} ${size}${times}`;
    const xattrs = view
      .listxattr(ino)
      .toSorted()
      .map((name) => ` ${name}=${Buffer.from(view.getxattr(ino, name)).toString('hex')}`);
    let body = '';
    if (type === 0o120000) body = ` -> ${Buffer.from(view.readlink(ino)).toString('latin1')}`;
    if (type === 0o100000) body = ` ${readWhole(view, ino).toString('latin1')}`;
    lines.push(head + xattrs.join('') + body);
    if (type !== 0o040000) return;
    for (const { name, ino: child, mode } of listNames(view, ino)) {
      const found = view.lookup(ino, name);
      if (found.ino !== child || (found.mode & 0o170000) !== (mode & 0o170000))
        lines.push(`${path}/${name}: readdir and lookup differ`);
      visit(child, `${path}/${name}`);
    }
  };
  visit(1, '');
  return lines;
}

/** A directory's entries in byte order, without '.' and '..'; read in pieces of two, as a slow reader does. */
export function listNames(view: View, ino: number): { name: string; ino: number; mode: number }[] {
  const found: { name: string; ino: number; mode: number }[] = [];
  for (let cookie = 0, more = true; more;) {
    more = false;
    let left = 2;
    view.readdir(ino, cookie, (name, child, mode, next) => {
      if (left-- === 0) {
        more = true;
        return false;
      }
      cookie = next;
      if (name !== '.' && name !== '..') found.push({ name, ino: child, mode });
      return true;
    });
  }
  return found.toSorted((a, b) => (a.name < b.name ? -1 : 1));
}

export function readWhole(view: View, ino: number): Buffer {
  const bytes = Buffer.alloc(view.getattr(ino).size);
  const got = view.read(ino, 0, bytes);
  return bytes.subarray(0, got);
}
