import { mkdir, open, rm, writeFile } from 'node:fs/promises';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { cloneLog } from '../../fs/history/clone-log.ts';
import { findConflict } from '../../fs/history/conflicts.ts';
import { RETAIN_ALL, writeRetain } from '../../fs/log/retention.ts';
import { type Mount, startMount } from '../../fs/mount.ts';
import { PgError, toErrorData } from '../../mdm/error.ts';
import { containerDir, containerRunDir, type Roots } from '../../store/paths.ts';
import { openStore } from '../../store/store.ts';
import type { AttachOptions, ExecOptions } from '../control.ts';
import { hostCgroup } from '../host.ts';
import { type Exit, syncfs } from '../native.ts';
import { type ContainerRecord, type ContainerState, logDirOf } from '../record.ts';
import { besideSpec, type HostSide } from '../spec.ts';
import type { ResolvedUser } from '../users.ts';
import { startWithStreams } from './exec.ts';
import type { OciRuntime } from './oci.ts';
import type { Reaper } from './reaper.ts';
import { ProcessStreams } from './streams.ts';

const DRAIN_MS = 500;
/** The most that one batch may be: whoever receives the log in a move holds a batch whole. */
const BATCH_BYTES = 48 << 20;
/** Directories of what is going on beside a container: in its own directory and in that of its run. */
export const BESIDE = 'atomic-';

/** The container that the command runs beside. */
export interface AtomicPlace {
  roots: Roots;
  record: ContainerRecord;
  runtime: OciRuntime;
  reaper: Reaper;
  initPid: number;
  host: HostSide;
  root: Mount;
  commit(): Promise<NonNullable<ContainerState['position']>>;
}

let lastNumber = 0;
/** Commands of this container end one after the other: each pauses it. */
let lastMerge: Promise<void> = Promise.resolve();

/**
 * `pg exec --atomic`: runs a command on a clone of the container's files as they are now, with everything else but its files in memory the container's own (processes, network, volumes). When it exits with 0, what it has written
 * is done in the container as one batch, while the container is paused; else it is forgotten. Resolves once it has started. ATOMIC_CONFLICT, told with the end: the container has changed the same meanwhile.
 */
export async function execAtomic(
  place: AtomicPlace,
  exec: ExecOptions & { resolvedUser: ResolvedUser },
  attach: AttachOptions | null,
  client: Socket,
): Promise<{ pid: number; streams: ProcessStreams; begin(): void; exit: Promise<Exit> }> {
  const { roots, record, runtime, reaper } = place;
  const name = `${BESIDE}${++lastNumber}`;
  const beside = new Beside(place, name);
  const streams = new ProcessStreams(undefined);
  try {
    await beside.begin();
    const runDir = join(containerRunDir(roots, record.id), name);
    const host = { ...place.host, rootPath: join(runDir, 'root'), cgroup: hostCgroup(`${record.id}-${name}`) };
    const spec = besideSpec(record, host, place.initPid, { ...exec, user: exec.resolvedUser });
    await writeFile(join(runDir, 'config.json'), JSON.stringify(spec), { mode: 0o600 });
    const pid = await startWithStreams(streams, exec.tty, exec.stdin, (stdio, socket) =>
      runtime.run(`${record.id}-${name}`, runDir, stdio, socket),
    );
    const exit = reaper.exitOf(pid).then(async (end) => {
      await streams.end(DRAIN_MS);
      try {
        await beside.end(end.code === 0);
        streams.finish({ exitCode: end.code });
      } catch (error) {
        streams.finish({ exitCode: end.code, error: toErrorData(error) });
      }
      return end;
    });
    const begin = (): void => {
      if (attach !== null) streams.attach(client, attach);
      streams.begin();
    };
    return { pid, streams, begin, exit };
  } catch (error) {
    await beside.end(false).catch(() => {});
    throw error;
  }
}

/** The private view: a clone of the log, mounted. */
class Beside {
  private readonly place: AtomicPlace;
  private readonly name: string;
  private readonly dir: string;
  private readonly runDir: string;
  private mount: Mount | undefined;
  /** Where the clone began, and the number of the first inode that is its own. */
  private from = 0;
  private firstIno = 0;

  constructor(place: AtomicPlace, name: string) {
    this.place = place;
    this.name = name;
    this.dir = join(containerDir(place.roots, place.record.id), name);
    this.runDir = join(containerRunDir(place.roots, place.record.id), name);
  }

  private get logDir(): string {
    return join(this.dir, 'log');
  }

  private get treeRoot(): Uint8Array | null {
    const { treeRoot } = this.place.record;
    return treeRoot === null ? null : Buffer.from(treeRoot, 'hex');
  }

  async begin(): Promise<void> {
    const { roots, record } = this.place;
    await mkdir(this.dir, { mode: 0o700 });
    await mkdir(join(this.runDir, 'root'), { recursive: true, mode: 0o700 });
    this.from = (await this.place.commit()).size;
    const store = openStore(roots, { readOnly: true });
    try {
      this.firstIno = cloneLog(store, this.treeRoot, logDirOf(roots, record.id), this.logDir, this.from);
      // What the command does is done again from its entries: none of them is cleaned away.
      writeRetain(this.logDir, RETAIN_ALL);
    } finally {
      await store.close();
    }
    this.mount = await startMount({
      roots,
      treeRoot: this.treeRoot,
      logDir: this.logDir,
      mountPoint: join(this.runDir, 'root'),
      label: `${record.name} (${this.name})`,
    });
  }

  /** Takes everything away; with `keep` what was written is the container's before that. */
  async end(keep: boolean): Promise<void> {
    const { runtime, record } = this.place;
    try {
      let written = 0;
      try {
        await runtime.remove(`${record.id}-${this.name}`);
        if (keep) written = await this.written();
      } finally {
        // In any case: what is mounted is not to be removed file by file.
        if (this.mount !== undefined) {
          await this.mount.unmount(true);
          await this.mount.end();
        }
      }
      if (written > this.from) await (lastMerge = lastMerge.catch(() => {}).then(() => this.merge(written)));
    } finally {
      await rm(this.runDir, { recursive: true, force: true });
      await rm(this.dir, { recursive: true, force: true });
    }
  }

  /** Bytes of the clone's log when all that the command wrote is in it. */
  private async written(): Promise<number> {
    const root = await open(join(this.runDir, 'root'), 'r');
    try {
      await syncfs(root.fd);
    } finally {
      await root.close();
    }
    return (await this.mount!.commit()).size;
  }

  /** While the container is paused: nothing of it writes between the look at what it has changed and the batch. */
  private async merge(written: number): Promise<void> {
    const { record, runtime, root } = this.place;
    if (written - this.from > BATCH_BYTES) {
      throw new PgError(
        'ATOMIC_TOO_LARGE',
        `the command wrote ${written - this.from} bytes: more than fit into one batch`,
        {
          hint: `nothing of it was kept; at most ${BATCH_BYTES} bytes can be, or do it in a container of its own: pg clone ${record.name} NAME`,
        },
      );
    }
    await runtime.pause(record.id);
    try {
      await this.place.commit();
      await this.refuseConflict();
      await root.merge(this.logDir, this.from, this.firstIno);
    } finally {
      await runtime.resume(record.id);
    }
    await this.place.commit();
  }

  private async refuseConflict(): Promise<void> {
    const { roots, record } = this.place;
    const store = openStore(roots, { readOnly: true });
    try {
      const conflict = findConflict(store, this.treeRoot, logDirOf(roots, record.id), this.logDir, this.from);
      if (conflict === undefined) return;
      throw new PgError(
        'ATOMIC_CONFLICT',
        `container ${record.name} and the command have both changed ${conflict}: nothing that the command wrote was kept`,
        { hint: 'run it again' },
      );
    } finally {
      await store.close();
    }
  }
}
