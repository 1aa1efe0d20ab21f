import { mkdirSync, readdirSync, readFileSync, readlinkSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { PgError } from '../../mdm/error.ts';
import type { Roots } from '../../store/paths.ts';
import { readJson, writeJsonAtomic } from '../json-file.ts';
import { briefLock } from '../lock.ts';
import { bootId, readState, type NetworkState, type PublishedPort } from '../record.ts';
import { containerIds } from '../names.ts';
import {
  chooseSubnet,
  formatIp,
  hashOf,
  macOf,
  addressOf,
  PREFIX_LENGTH,
  releaseAddress,
  routedNetworks,
  takeAddress,
} from './address.ts';
import { networkCommand } from './command.ts';
import { type Firewall, makeFirewall, passForwardPolicy, publish, unpublish } from './firewall.ts';
import { shaped, text, uintUpTo } from '../../store/shape.ts';

/** Where `ip netns` keeps its names (ip-netns(8)). */
const NETNS_DIR = '/run/netns';
/** Held while a subnet is chosen: two installations of one machine must not choose the same. */
const MACHINE_LOCK = '/run/pg-network.lock';

interface Bridge {
  bootId: string;
  name: string;
  /** `10.144.16.0`, as a number. */
  subnet: number;
}

const BRIDGE = shaped({ bootId: text, name: text, subnet: uintUpTo(2 ** 32 - 1) });

/** Network namespaces are told apart by number: an installation may be used from several, each with a bridge of its own. */
const namespaceNumber = (): string => /\[(\d+)\]/.exec(readlinkSync('/proc/self/ns/net'))?.[1] ?? '0';
const networkDir = (roots: Roots, namespace = namespaceNumber()): string => join(roots.run, 'network', namespace);
const addressDir = (roots: Roots, namespace = namespaceNumber()): string =>
  join(networkDir(roots, namespace), 'addresses');

export const netnsName = (id: string): string => `pg-${id.slice(0, 12)}`;
const vethName = (id: string): string => `pgv${id.slice(0, 11)}`;

function linkExists(name: string): boolean {
  return readFileSync('/proc/net/dev', 'latin1').includes(`${name}:`);
}

function firewallOf(bridge: Bridge): Firewall {
  return {
    table: bridge.name.replace('-', '_'),
    bridge: bridge.name,
    subnet: `${formatIp(bridge.subnet)}/${PREFIX_LENGTH}`,
  };
}

/** The installation's bridge in this network namespace, made when it is not there: its name and subnet come from the data directory's path. */
async function ensureBridge(roots: Roots): Promise<Bridge> {
  const path = join(networkDir(roots), 'bridge.json');
  const known = readJson<Bridge>(path, BRIDGE);
  if (known?.bootId === bootId() && linkExists(known.name)) return known;
  mkdirSync(networkDir(roots), { recursive: true, mode: 0o700 });
  const lock = await briefLock(MACHINE_LOCK);
  try {
    const now = readJson<Bridge>(path, BRIDGE);
    if (now?.bootId === bootId() && linkExists(now.name)) return now;
    const seed = realpathSync(roots.data);
    const name = `pg-${hashOf(seed)}`;
    if (linkExists(name)) await networkCommand('ip', ['link', 'del', name]);
    // Of an earlier boot or an earlier bridge: nobody has them now.
    if (now === undefined || now.bootId !== bootId()) rmSync(addressDir(roots), { recursive: true, force: true });
    const subnet = chooseSubnet(seed, routedNetworks(readFileSync('/proc/net/route', 'latin1')));
    const bridge = { bootId: bootId(), name, subnet };
    await networkCommand(
      'ip',
      ['-batch', '-'],
      `link add ${name} type bridge\naddr add ${formatIp(subnet + 1)}/${PREFIX_LENGTH} dev ${name}\nlink set ${name} up\n`,
    );
    setSysctl('net/ipv4/ip_forward');
    setSysctl(`net/ipv4/conf/${name}/route_localnet`);
    await makeFirewall(firewallOf(bridge), livePorts(roots));
    writeJsonAtomic(path, bridge);
    return bridge;
  } finally {
    lock.release();
  }
}

function setSysctl(name: string): void {
  const path = `/proc/sys/${name}`;
  try {
    if (readFileSync(path, 'latin1').trim() !== '1') writeFileSync(path, '1');
  } catch (cause) {
    throw new PgError('NETWORK', `cannot set ${path} to 1: ${(cause as Error).message}`, {
      hint: 'containers on a bridge need forwarding; --network host and none do without',
      cause,
    });
  }
}

/** Ports of the containers that run now, for a table that has to be made anew. */
function livePorts(roots: Roots): PublishedPort[] {
  return containerIds(roots)
    .map((id) => readState(roots, id))
    .filter((state) => state.bootId === bootId() && (state.status === 'running' || state.status === 'restarting'))
    .flatMap((state) => state.network?.ports ?? []);
}

/** Whether the container's state says that it has this address in this boot. */
function holdsAddress(roots: Roots, id: string, ip: string): boolean {
  if (!/^[0-9a-f]{64}$/.test(id)) return false;
  const state = readState(roots, id);
  return state.bootId === bootId() && state.network?.ip === ip;
}

/** Makes the named network namespace of a container. What a dead one left under the name is removed first. */
export async function makeNamespace(id: string): Promise<string> {
  const name = netnsName(id);
  try {
    await networkCommand('ip', ['netns', 'add', name]);
  } catch (error) {
    if (!(error as Error).message.includes('File exists')) throw error;
    await networkCommand('ip', ['netns', 'del', name]).catch(() => rmSync(join(NETNS_DIR, name), { force: true }));
    await networkCommand('ip', ['netns', 'add', name]);
  }
  return join(NETNS_DIR, name);
}

/**
 * Connects a container to the bridge: namespace, veth pair, address, default route. Its ports (`publishes`: there are some) are published
 * later, by `publishPorts`.
 * On failure nothing is left behind.
 */
export async function connectToBridge(roots: Roots, id: string, publishes: boolean): Promise<NetworkState> {
  try {
    return await connectOnce(roots, id, publishes);
  } catch (error) {
    // Somebody may have removed the bridge, which was not in use yet, at this very moment.
    if (readJson(join(networkDir(roots), 'bridge.json')) !== undefined) throw error;
    return connectOnce(roots, id, publishes);
  }
}

async function connectOnce(roots: Roots, id: string, publishes: boolean): Promise<NetworkState> {
  const namespace = makeNamespace(id);
  // Both at once; the namespace is awaited before anything can throw it away.
  const [netnsResult, bridgeResult] = await Promise.allSettled([namespace, ensureBridge(roots)]);
  if (netnsResult.status === 'rejected') throw netnsResult.reason;
  if (bridgeResult.status === 'rejected') {
    await removeNamespace(id);
    throw bridgeResult.reason;
  }
  const bridge = bridgeResult.value;
  const ip = takeAddress(addressDir(roots), bridge.subnet, id, (owner, address) => holdsAddress(roots, owner, address));
  const gateway = formatIp(bridge.subnet + 1);
  const veth = vethName(id);
  const state: NetworkState = {
    mode: 'bridge',
    hostNamespace: namespaceNumber(),
    netns: netnsResult.value,
    ip,
    prefixLength: PREFIX_LENGTH,
    gateway,
    mac: macOf(ip),
    bridge: bridge.name,
    veth,
    ports: [],
  };
  try {
    if (linkExists(veth)) await networkCommand('ip', ['link', 'del', veth]);
    const mtu = mtuOfDefaultRoute();
    // Where bridged packets go through the netfilter of IP (br_netfilter), a container reaches its own published ports only so.
    const hairpin = publishes ? `link set ${veth} type bridge_slave hairpin on\n` : '';
    await networkCommand(
      'ip',
      ['-batch', '-'],
      `link add ${veth} mtu ${mtu} type veth peer name eth0 mtu ${mtu} address ${state.mac} netns ${netnsName(id)}\nlink set ${veth} master ${bridge.name} up\n${hairpin}`,
    );
    await networkCommand(
      'ip',
      ['-n', netnsName(id), '-batch', '-'],
      `link set lo up\naddr add ${ip}/${PREFIX_LENGTH} broadcast + dev eth0\nlink set eth0 up\nroute add default via ${gateway}\n`,
    );
    if (linkExists('docker0')) await passForwardPolicy(bridge.name);
    if (!linkExists(bridge.name)) throw new PgError('NETWORK', `the bridge ${bridge.name} was removed meanwhile`);
    return state;
  } catch (error) {
    await disconnect(roots, id, state);
    throw error;
  }
}

/** The smallest MTU that outgoing packets will meet on this host's own links: a larger one on the bridge would lose large packets. */
function mtuOfDefaultRoute(): number {
  const route = readFileSync('/proc/net/route', 'latin1')
    .split('\n')
    .slice(1)
    .map((line) => line.split(/\s+/))
    .find((f) => f[1] === '00000000' && f[7] === '00000000');
  if (route === undefined) return 1500;
  try {
    // sysfs shows the links of the namespace it was mounted in: then the usual size is right too.
    return Number(readFileSync(`/sys/class/net/${route[0]}/mtu`, 'latin1')) || 1500;
  } catch {
    return 1500;
  }
}

/** Publishes the container's ports; the table is made anew when someone has flushed it. */
export async function publishPorts(roots: Roots, ports: readonly PublishedPort[]): Promise<void> {
  if (ports.length === 0) return;
  const bridge = await ensureBridge(roots);
  if (await publish(firewallOf(bridge), ports)) return;
  await makeFirewall(firewallOf(bridge), [...livePorts(roots), ...ports]);
}

/** Removes the namespace's name; the kernel removes the rest when the last process has left it. */
export async function removeNamespace(id: string): Promise<void> {
  await networkCommand('ip', ['netns', 'del', netnsName(id)]).catch(() =>
    rmSync(join(NETNS_DIR, netnsName(id)), { force: true }),
  );
}

/** What a container that was being connected when its shim was killed may have: the names are its own, the address is looked for. */
export function leftoverNetwork(roots: Roots, id: string): NetworkState {
  return {
    hostNamespace: namespaceNumber(),
    mode: 'bridge',
    prefixLength: PREFIX_LENGTH,
    gateway: '',
    mac: '',
    bridge: '',
    ports: [],
    netns: join(NETNS_DIR, netnsName(id)),
    veth: vethName(id),
    ip: addressOf(addressDir(roots), id),
  };
}

/** Takes away everything that `connectToBridge` and `publishPorts` made. May be done again, by anyone, in any state. */
export async function disconnect(roots: Roots, id: string, state: NetworkState): Promise<void> {
  const bridge = readJson<Bridge>(join(networkDir(roots, state.hostNamespace), 'bridge.json'), BRIDGE);
  await Promise.all([
    bridge === undefined ? undefined : unpublish(firewallOf(bridge), state.ports),
    linkExists(state.veth) ? networkCommand('ip', ['link', 'del', state.veth]).catch(() => '') : undefined,
  ]);
  await removeNamespace(id);
  releaseAddress(addressDir(roots, state.hostNamespace), state.ip, id);
}

/** The addresses of the installation's bridge here that containers have. */
function takenAddresses(roots: Roots): string[] {
  try {
    return readdirSync(addressDir(roots));
  } catch {
    // No address was ever taken.
    return [];
  }
}

/** Removes the installation's bridge in this network namespace, and its rules; false when there is none, or a container is connected. */
export async function removeUnusedBridge(roots: Roots): Promise<boolean> {
  const path = join(networkDir(roots), 'bridge.json');
  if (readJson<Bridge>(path, BRIDGE) === undefined) return false;
  const lock = await briefLock(MACHINE_LOCK);
  try {
    const bridge = readJson<Bridge>(path, BRIDGE);
    if (bridge === undefined || takenAddresses(roots).length > 0) return false;
    // First of all, so that who connects a container now makes a new one.
    rmSync(dirname(path), { recursive: true, force: true });
    await networkCommand('ip', ['link', 'del', bridge.name]).catch(() => '');
    await networkCommand('nft', ['delete', 'table', 'ip', firewallOf(bridge).table]).catch(() => '');
    return true;
  } finally {
    lock.release();
  }
}
