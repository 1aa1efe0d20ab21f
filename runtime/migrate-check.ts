import { accessSync, constants, existsSync, statfsSync } from 'node:fs';
import { createSocket } from 'node:dgram';
import { createServer } from 'node:net';
import { PgError } from '../mdm/error.ts';
import type { Roots } from '../store/paths.ts';
import { resolveContainer } from './names.ts';
import { readRecord, recordPath, type ContainerRecord, type PortRequest } from './record.ts';
import { readOwnership } from './migrate-state.ts';

/** Space that a move leaves free on the disk it comes to. */
const SPARE_BYTES = 64 << 20;
/** Node's names of processors, as images name them. */
const ARCHITECTURE: Record<string, string> = {
  x64: 'amd64',
  ia32: '386',
  arm: 'arm',
  arm64: 'arm64',
  riscv64: 'riscv64',
};

/** What is known of a container that is to come here. */
export interface Arrival {
  record: ContainerRecord;
  /** Epoch of its owner. */
  epoch: number;
  /** It runs, and is to run here. */
  running: boolean;
  /** `os/architecture` of its image, empty if there is none. */
  platform: string;
  /** Bytes that would be added to the disk. */
  bytes: number;
}

/**
 * Whether the container can come here and run; anything against it is an error now, while it still runs where it is.
 * CONTAINER_HERE, EPOCH_OLD, NAME_TAKEN, PLATFORM, NO_RUNTIME, NO_SPACE, PORT_TAKEN.
 */
export async function checkArrival(roots: Roots, arrival: Arrival): Promise<void> {
  const { record, epoch, platform } = arrival;
  checkOwnership(roots, record, epoch);
  checkName(roots, record);
  const [system, architecture] = platform.split('/');
  if (platform !== '' && (system !== 'linux' || architecture !== (ARCHITECTURE[process.arch] ?? process.arch))) {
    throw new PgError(
      'PLATFORM',
      `the container's image is for ${platform}, this node is linux/${ARCHITECTURE[process.arch] ?? process.arch}`,
    );
  }
  if (arrival.running) {
    checkRuntime(record.config.runtime);
    for (const port of record.config.ports) await checkPort(port);
  }
  checkSpace(roots, arrival.bytes);
}

/** CONTAINER_HERE when this node owns it, EPOCH_OLD when it is offered by who owned it once. */
export function checkOwnership(roots: Roots, record: ContainerRecord, epoch: number): void {
  // Also one whose record cannot be read: its log is here.
  if (!existsSync(recordPath(roots, record.id))) return;
  const known = readOwnership(roots, record.id);
  if (known.role === 'owner') {
    throw new PgError(
      'CONTAINER_HERE',
      `container ${record.name} belongs to this node (epoch ${known.epoch}); it is offered at epoch ${epoch}`,
    );
  }
  if (known.epoch > epoch) {
    throw new PgError(
      'EPOCH_OLD',
      `container ${record.name} is offered at epoch ${epoch}, but epoch ${known.epoch} has begun`,
      {
        hint: 'the copy that is offered was handed over earlier; another node owns the container',
      },
    );
  }
}

function checkName(roots: Roots, record: ContainerRecord): void {
  let holder: string;
  try {
    holder = resolveContainer(roots, record.name);
  } catch {
    return;
  }
  // A name may also be the beginning of an id here: that is no clash.
  if (holder !== record.id && readRecord(roots, holder).name === record.name) throw nameTaken(record.name);
}

/** NAME_TAKEN. */
export function nameTaken(name: string): PgError {
  return new PgError('NAME_TAKEN', `the name ${name} is taken by another container on the target node`, {
    hint: 'rename or remove the other container there: pg rm NAME',
  });
}

function checkRuntime(runtime: string): void {
  const found = (process.env['PATH'] ?? '/usr/sbin:/usr/bin:/sbin:/bin').split(':').some((dir) => {
    try {
      accessSync(`${dir}/${runtime}`, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
  if (!found) throw new PgError('NO_RUNTIME', `the target node has no ${runtime}`, { hint: 'there: pg doctor' });
}

function checkSpace(roots: Roots, bytes: number): void {
  const { bavail, bsize } = statfsSync(roots.data);
  const free = bavail * bsize;
  if (free < bytes + SPARE_BYTES) {
    throw new PgError(
      'NO_SPACE',
      `the target node has ${free} bytes free in ${roots.data}, the move needs ${bytes + SPARE_BYTES}`,
    );
  }
}

/** PORT_TAKEN when the port cannot be bound here. A port that any free one may stand for (0) always can. */
async function checkPort({ hostIp, hostPort, protocol }: PortRequest): Promise<void> {
  if (hostPort === 0) return;
  const address = hostIp === '' ? {} : { host: hostIp, address: hostIp };
  await new Promise<void>((resolve, reject) => {
    const failed = (error: NodeJS.ErrnoException): void =>
      reject(
        new PgError(
          'PORT_TAKEN',
          `port ${hostPort}/${protocol} cannot be published on the target node: ${error.code === 'EADDRINUSE' ? 'it is in use there' : error.message}`,
        ),
      );
    if (protocol === 'udp') {
      const socket = createSocket(hostIp.includes(':') ? 'udp6' : 'udp4');
      socket.once('error', failed);
      socket.bind({ port: hostPort, exclusive: true, ...address }, () => socket.close(() => resolve()));
    } else {
      const server = createServer();
      server.once('error', failed);
      server.listen({ port: hostPort, exclusive: true, ...address }, () => server.close(() => resolve()));
    }
  });
}
