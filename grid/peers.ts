import { randomUUID } from 'node:crypto';
import {
  closeSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { PgError } from '../mdm/error.ts';
import { nodeDir, type Roots } from '../store/paths.ts';
import { publicKeyOfId } from './identity.ts';

/** A node that this one talks to: whoever connects, or answers at the address, must hold the key of the id. */
export interface Peer {
  name: string;
  /** `12D3Koo...`. */
  id: string;
  host: string;
  port: number;
}

export const DEFAULT_PORT = 7411;
const NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$/;

/** One file per peer, `<data>/node/peers/NAME.json`: adding and removing are single atomic calls, with nothing to lose in between. */
const peersDir = (roots: Roots): string => join(nodeDir(roots), 'peers');
const peerPath = (roots: Roots, name: string): string => join(peersDir(roots), `${name}.json`);

/** `host:port`, `[v6]:port` or a bare host (port 7411); BAD_ADDRESS otherwise. */
export function parseAddress(text: string): { host: string; port: number } {
  const match = /^(?:\[([0-9A-Fa-f:.%a-z]+)\]|([^\s:/[\]]+))(?::([0-9]{1,5}))?$/.exec(text);
  const host = match?.[1] ?? match?.[2];
  const port = match?.[3] === undefined ? DEFAULT_PORT : Number(match[3]);
  if (host === undefined || port > 65535) {
    throw new PgError('BAD_ADDRESS', `'${text}' is not an address`, {
      hint: `HOST:PORT, for example 192.0.2.7:${DEFAULT_PORT} or [2001:db8::7]:${DEFAULT_PORT}`,
    });
  }
  return { host, port };
}

/** An address as people write it. */
export function formatAddress(at: { host: string; port: number }): string {
  return at.host.includes(':') ? `[${at.host}]:${at.port}` : `${at.host}:${at.port}`;
}

/**
 * Remembers a peer. Saying the same again is fine; with the same name and id, the address is replaced.
 * Errors: BAD_PEER_NAME, BAD_ADDRESS, BAD_NODE_ID, PEER_EXISTS (the name stands for another id, or the id has another name).
 */
export function addPeer(roots: Roots, name: string, address: string, id: string): Peer {
  if (!NAME.test(name)) {
    throw new PgError('BAD_PEER_NAME', `'${name}' cannot be a peer's name`, {
      hint: 'letters, digits, _ . and -, beginning with a letter or digit',
    });
  }
  publicKeyOfId(id);
  const peer: Peer = { name, id, ...parseAddress(address) };
  const clash = listPeers(roots).find((known) => (known.name === name) !== (known.id === id));
  if (clash !== undefined) {
    throw new PgError('PEER_EXISTS', `there is a peer ${clash.name} with id ${clash.id} already`, {
      hint: `pg peer rm ${clash.name}`,
    });
  }
  mkdirSync(peersDir(roots), { recursive: true, mode: 0o700 });
  const temporary = join(peersDir(roots), `.${randomUUID()}`);
  const fd = openSync(temporary, 'wx', 0o644);
  try {
    writeSync(fd, `${JSON.stringify({ version: 1, ...peer }, undefined, 2)}\n`);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  placePeer(roots, temporary, peer);
  return peer;
}

/** Gives the written file its name: a new name must be free (another `pg peer add` may have taken it meanwhile). */
function placePeer(roots: Roots, temporary: string, peer: Peer): void {
  const path = peerPath(roots, peer.name);
  try {
    linkSync(temporary, path);
    rmSync(temporary);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    if (findPeer(roots, peer.name)?.id === peer.id) return renameSync(temporary, path);
    rmSync(temporary);
    throw new PgError('PEER_EXISTS', `another peer was just given the name ${peer.name}`, { hint: 'pg peer ls' });
  }
}

/** All known peers, by name. A file that cannot be read as a peer is an error that names it: BAD_PEER_FILE. */
export function listPeers(roots: Roots): Peer[] {
  let files: string[];
  try {
    files = readdirSync(peersDir(roots));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
  return files
    .filter((file) => file.endsWith('.json') && !file.startsWith('.'))
    .toSorted()
    .map((file) => readPeer(join(peersDir(roots), file)))
    .filter((peer) => peer !== undefined);
}

function readPeer(path: string): Peer | undefined {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  try {
    const { version, name, id, host, port } = JSON.parse(text) as Peer & { version: number };
    if (version !== 1 || typeof host !== 'string' || !Number.isInteger(port)) throw new Error('not version 1');
    publicKeyOfId(id);
    return { name, id, host, port };
  } catch (cause) {
    throw new PgError('BAD_PEER_FILE', `${path} is not a peer's file`, {
      hint: 'remove it and add the peer again',
      cause,
    });
  }
}

/** The peer of this name, or undefined. */
export function findPeer(roots: Roots, name: string): Peer | undefined {
  return NAME.test(name) ? readPeer(peerPath(roots, name)) : undefined;
}

/** The peer of this name; PEER_NOT_FOUND names those that there are. */
export function getPeer(roots: Roots, name: string): Peer {
  const peer = findPeer(roots, name);
  if (peer !== undefined) return peer;
  const known = listPeers(roots).map((other) => other.name);
  throw new PgError('PEER_NOT_FOUND', `there is no peer '${name}'`, {
    hint: known.length > 0 ? `known peers: ${known.join(', ')}` : 'pg peer add NAME HOST:PORT ID',
  });
}

/** The peer that holds the key of `id`, or undefined. */
export function peerOfId(roots: Roots, id: string): Peer | undefined {
  return listPeers(roots).find((peer) => peer.id === id);
}

/** Forgets a peer; PEER_NOT_FOUND when there is none of this name. */
export function removePeer(roots: Roots, name: string): void {
  rmSync(peerPath(roots, getPeer(roots, name).name));
}
