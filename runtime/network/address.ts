import { createHash } from 'node:crypto';
import { linkSync, mkdirSync, readdirSync, readFileSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PgError } from '../../mdm/error.ts';

/** IPv4 addresses are unsigned 32-bit numbers here. */
export const formatIp = (ip: number): string => [24, 16, 8, 0].map((shift) => (ip >>> shift) & 255).join('.');

export function parseIp(text: string): number | undefined {
  const parts = text.split('.');
  if (parts.length !== 4 || !parts.every((p) => /^\d{1,3}$/.test(p) && Number(p) < 256)) return undefined;
  return parts.reduce((ip, p) => (ip * 256 + Number(p)) >>> 0, 0);
}

/** The pool that installations take their subnets from: 10.144.0.0/12, in pieces of 4,096 addresses. */
const POOL_BASE = 0x0a900000;
const POOL_SUBNETS = 256;
export const PREFIX_LENGTH = 20;
const SUBNET_ADDRESSES = 2 ** (32 - PREFIX_LENGTH);

/** A number of 32 bits from a path: where an installation begins to look. */
export function hashOf(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 8);
}

const swap = (hex: string): number => Buffer.from(hex, 'hex').readUInt32LE(0);

/** The IPv4 routes of this network namespace but the default, from /proc/net/route (proc(5)): network and mask, hex, host byte order. */
export function routedNetworks(table: string): { network: number; mask: number }[] {
  return table
    .split('\n')
    .slice(1)
    .map((line) => line.trim().split(/\s+/))
    .filter((f) => f.length >= 8 && f[7] !== '00000000')
    .map((f) => ({ network: swap(f[1]!), mask: swap(f[7]!) }));
}

/** A subnet of the pool that overlaps no route, the first looked at being `seed`'s. PgError('NETWORK') when all are taken. */
export function chooseSubnet(seed: string, routes: { network: number; mask: number }[]): number {
  const start = Number.parseInt(hashOf(seed), 16) % POOL_SUBNETS;
  const ownMask = ~(SUBNET_ADDRESSES - 1) >>> 0;
  for (let i = 0; i < POOL_SUBNETS; i++) {
    const subnet = (POOL_BASE + ((start + i) % POOL_SUBNETS) * SUBNET_ADDRESSES) >>> 0;
    const overlaps = routes.some(({ network, mask }) => {
      const common = (mask & ownMask) >>> 0;
      return (network & common) >>> 0 === (subnet & common) >>> 0;
    });
    if (!overlaps) return subnet;
  }
  throw new PgError('NETWORK', 'no free subnet in 10.144.0.0/12 for the bridge', {
    hint: 'ip route shows what takes it',
  });
}

/**
 * Takes a free address of the subnet for a container: one file for each address, that appears whole or not at all, so that commands at once get
 * different ones. `isHeld` says of an address found taken whether its container still has it (it may have died with its shim).
 */
export function takeAddress(
  dir: string,
  subnet: number,
  id: string,
  isHeld: (id: string, ip: string) => boolean,
): string {
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  const temporary = join(dir, `.${id}`);
  writeFileSync(temporary, id);
  try {
    const taken = new Set(readdirSync(dir));
    for (const frugal of [true, false]) {
      // The first is the bridge's, the last the broadcast's.
      for (let offset = 2; offset < SUBNET_ADDRESSES - 1; offset++) {
        const ip = formatIp(subnet + offset);
        if (taken.has(ip)) {
          if (frugal && offset < SUBNET_ADDRESSES - 2) continue;
          if (ownerOf(dir, ip) !== id && isHeld(ownerOf(dir, ip), ip)) continue;
          releaseAddress(dir, ip, ownerOf(dir, ip));
        }
        try {
          linkSync(temporary, join(dir, ip));
          return ip;
        } catch (error) {
          if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
        }
      }
    }
  } finally {
    unlinkSync(temporary);
  }
  throw new PgError('NETWORK', `all addresses of ${formatIp(subnet)}/${PREFIX_LENGTH} are taken`);
}

function ownerOf(dir: string, ip: string): string {
  try {
    return readFileSync(join(dir, ip), 'utf8');
  } catch {
    return '';
  }
}

/** The address that a container has taken, or an empty text. */
export function addressOf(dir: string, id: string): string {
  try {
    return readdirSync(dir).find((ip) => ownerOf(dir, ip) === id && parseIp(ip) !== undefined) ?? '';
  } catch {
    return '';
  }
}

/** Gives an address back if it is this container's. */
export function releaseAddress(dir: string, ip: string, id: string): void {
  if (ownerOf(dir, ip) !== id) return;
  try {
    unlinkSync(join(dir, ip));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}

/** A locally administered MAC address that goes with the IP address, as docker's do: a container that gets the address again is found at once. */
export function macOf(ip: string): string {
  const bytes = ip.split('.').map((part) => Number(part).toString(16).padStart(2, '0'));
  return `02:42:${bytes.join(':')}`;
}
