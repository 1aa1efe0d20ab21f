import { execFile } from 'node:child_process';
import { accessSync, constants, existsSync, mkdirSync, readFileSync, statfsSync } from 'node:fs';
import { arch, release } from 'node:os';
import { promisify } from 'node:util';
import type { Roots } from '../store/paths.ts';

const run = promisify(execFile);

/** One thing looked at. `optional` is a thing pg does without, `missing` one that it needs. */
export interface Finding {
  what: string;
  state: 'ok' | 'optional' | 'missing';
  says: string;
  mend?: string;
}

/** Looks at everything pg stands on; changes nothing but making the data directory. */
export async function examine(roots: Roots): Promise<Finding[]> {
  return [
    { what: 'node', state: 'ok', says: `${process.version} ${arch()} (pg's own), kernel ${release()}` },
    asRoot(),
    fuse(),
    dataDir(roots),
    await program('runc', 'the default OCI runtime', 'runc', ['--version'], true),
    await program('crun', 'the other runtime (--runtime crun)', 'crun', ['--version'], false),
    await program('ip', 'bridge networks', 'iproute2', ['-V'], true),
    await program('nft', 'published ports, outgoing traffic', 'nftables', ['--version'], true),
    cgroups(),
    initProgram(),
    openFiles(),
  ];
}

function asRoot(): Finding {
  if (process.getuid?.() === 0) return { what: 'root', state: 'ok', says: 'running as root' };
  return {
    what: 'root',
    state: 'missing',
    says: 'not root: containers and mounts need it; import, images and export work without',
    mend: 'sudo pg ...',
  };
}

function fuse(): Finding {
  const mend = 'modprobe fuse   # in a container: start it with --device /dev/fuse';
  if (!existsSync('/dev/fuse')) return { what: 'fuse', state: 'missing', says: 'no /dev/fuse', mend };
  try {
    accessSync('/dev/fuse', constants.R_OK | constants.W_OK);
    return { what: 'fuse', state: 'ok', says: '/dev/fuse can be opened' };
  } catch {
    return { what: 'fuse', state: 'missing', says: '/dev/fuse is there but not for this user', mend: 'sudo pg ...' };
  }
}

function dataDir(roots: Roots): Finding {
  try {
    mkdirSync(roots.data, { recursive: true });
    accessSync(roots.data, constants.W_OK);
    const fs = statfsSync(roots.data);
    const freeGiB = (fs.bavail * fs.bsize) / 2 ** 30;
    const low = freeGiB < 1;
    return {
      what: 'data directory',
      state: low ? 'missing' : 'ok',
      says: `${roots.data}, ${freeGiB.toFixed(1)} GiB free`,
      ...(low ? { mend: 'free some space there, or choose another place: pg --root DIR ...' } : {}),
    };
  } catch (error) {
    return {
      what: 'data directory',
      state: 'missing',
      says: `${roots.data}: ${(error as Error).message}`,
      mend: 'sudo pg ..., or pg --root DIR ...',
    };
  }
}

async function program(
  name: string,
  purpose: string,
  aptPackage: string,
  args: string[],
  needed: boolean,
): Promise<Finding> {
  try {
    const { stdout, stderr } = await run(name, args);
    return { what: name, state: 'ok', says: (stdout || stderr).split('\n')[0]!.trim() };
  } catch {
    return {
      what: name,
      state: needed ? 'missing' : 'optional',
      says: `not found (for ${purpose})`,
      mend: `apt-get install ${aptPackage}`,
    };
  }
}

function cgroups(): Finding {
  const mounts = readFileSync('/proc/self/mounts', 'utf8');
  const v1 = [...mounts.matchAll(/^\S+ \S+ cgroup \S*?,([a-z_,]+) /gm)].length;
  const v2 = / cgroup2 /.test(mounts);
  if (v1 > 0)
    return { what: 'cgroups', state: 'ok', says: `version 1, ${v1} controllers${v2 ? ', and the unified tree' : ''}` };
  if (v2) return { what: 'cgroups', state: 'ok', says: 'version 2' };
  return {
    what: 'cgroups',
    state: 'missing',
    says: 'no cgroup filesystem is mounted',
    mend: 'mount -t cgroup2 none /sys/fs/cgroup',
  };
}

function initProgram(): Finding {
  const found = [
    '/usr/libexec/docker/docker-init',
    '/usr/bin/docker-init',
    '/usr/bin/tini',
    '/usr/bin/catatonit',
    '/usr/libexec/podman/catatonit',
  ].find((p) => existsSync(p));
  if (found !== undefined) return { what: 'init', state: 'ok', says: found };
  return { what: 'init', state: 'optional', says: 'no tini for --init', mend: 'apt-get install tini' };
}

function openFiles(): Finding {
  const hard = Number(
    /Max open files\s+\d+\s+(\d+|unlimited)/.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1] ?? 'NaN',
  );
  const says = `at most ${Number.isNaN(hard) ? 'any number' : hard} a process`;
  return hard < 65536
    ? { what: 'open files', state: 'optional', says: `${says}; --ulimit nofile beyond that is cut down with a warning` }
    : { what: 'open files', state: 'ok', says };
}
