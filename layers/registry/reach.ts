/**
 * Where a registry may send us: to any public address, and to private ones only when it is private itself (docs/decisions/0081-where-registries-send-us.md).
 * Else whoever runs a registry on the internet could have this machine ask its neighbours, or the metadata service of its cloud.
 */
import { lookup as dnsLookup } from 'node:dns';
import { lookup } from 'node:dns/promises';
import { BlockList, isIP, type LookupFunction } from 'node:net';
import { PgError } from '../../mdm/error.ts';

/** IANA's special-purpose registries (RFC 6890 and after) as far as nothing public is there. */
const PRIVATE = new BlockList();
for (const [network, prefix] of [
  ['0.0.0.0', 8],
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['127.0.0.0', 8],
  ['169.254.0.0', 16],
  ['172.16.0.0', 12],
  ['192.0.0.0', 24],
  ['192.168.0.0', 16],
  ['198.18.0.0', 15],
  ['224.0.0.0', 3],
] as const)
  PRIVATE.addSubnet(network, prefix, 'ipv4');
for (const [network, prefix] of [
  ['::', 127],
  ['64:ff9b:1::', 48],
  ['fc00::', 7],
  ['fe80::', 10],
  ['ff00::', 8],
] as const)
  PRIVATE.addSubnet(network, prefix, 'ipv6');

/** All addresses of a name. */
export type Resolve = (hostname: string) => Promise<readonly string[]>;

const resolveByDns: Resolve = async (hostname) => (await lookup(hostname, { all: true })).map(({ address }) => address);

const bare = (hostname: string): string => hostname.replace(/^\[|\]$/g, '').toLowerCase();

/** Whether an IP address is of this machine, its link or a network that is not the internet. IPv4 within IPv6 counts as what it is. */
export function isPrivateAddress(address: string): boolean {
  const ip = bare(address).replace(/%.*$/, '');
  if (isIP(ip) === 4) return PRIVATE.check(ip, 'ipv4');
  if (isIP(ip) !== 6) return false;
  // ::ffff:a.b.c.d, and NAT64's 64:ff9b::a.b.c.d, as URL writes them: the last 32 bits in two groups.
  const mapped = /^(?:::ffff|64:ff9b:):([0-9a-f]{1,4}):([0-9a-f]{1,4})$/.exec(
    new URL(`http://[${ip}]`).hostname.slice(1, -1),
  );
  if (mapped === null) return PRIVATE.check(ip, 'ipv6');
  const [high, low] = [parseInt(mapped[1]!, 16), parseInt(mapped[2]!, 16)];
  return PRIVATE.check([high >> 8, high & 255, low >> 8, low & 255].join('.'), 'ipv4');
}

/** Whether a URL's host is private: as an address, as `localhost`, or because all of its addresses are. A name that has none is public. */
export async function isPrivateHost(hostname: string, resolve: Resolve = resolveByDns): Promise<boolean> {
  const host = bare(hostname);
  if (/(^|\.)localhost\.?$/.test(host)) return true;
  if (isIP(host) !== 0) return isPrivateAddress(host);
  const addresses = await resolve(host).catch(() => []);
  return addresses.length > 0 && addresses.every(isPrivateAddress);
}

/**
 * Whether `url`, where the registry at `origin` sends us, may only be asked on a public address (then connect with `publicLookup`). PgError REGISTRY_MISBEHAVES
 * when it says a private one itself.
 */
export async function mustBePublic(url: URL, origin: URL, resolve: Resolve = resolveByDns): Promise<boolean> {
  if (url.host === origin.host || (await isPrivateHost(origin.hostname, resolve))) return false;
  const host = bare(url.hostname);
  if (/(^|\.)localhost\.?$/.test(host) || isPrivateAddress(host)) throw sentAstray(host, host);
  return true;
}

/** For net.connect: as dns.lookup, but a name with a private address is an error. Asked when the connection is made, so that no second answer comes in between. */
export const publicLookup: LookupFunction = (hostname, options, callback) => {
  dnsLookup(hostname, { ...options, all: true }, (error, addresses) => {
    const hidden = addresses?.find(({ address }) => isPrivateAddress(address));
    if (error !== null) callback(error, '');
    else if (hidden !== undefined) callback(sentAstray(hostname, hidden.address), '');
    else if (options.all === true) callback(null, addresses);
    else callback(null, addresses[0]!.address, addresses[0]!.family);
  });
};

function sentAstray(host: string, address: string): PgError {
  const where = host === address ? address : `${host} (${address})`;
  return new PgError(
    'REGISTRY_MISBEHAVES',
    `a registry on a public address sends us to ${where}, which is a private one`,
    {
      hint: 'nothing was asked there; if it is meant to, set insecure = true for the registry in registries.conf',
    },
  );
}
