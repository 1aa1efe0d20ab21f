import { networkCommand } from './command.ts';
import type { PublishedPort } from '../record.ts';

/** What the rules of one installation in one network namespace are about. */
export interface Firewall {
  /** Name of the nftables table. */
  table: string;
  bridge: string;
  /** `10.144.16.0/20` */
  subnet: string;
}

/**
 * The table of one bridge: outgoing traffic masqueraded; published ports by four maps (any address or one, tcp or udp), reached from
 * outside, from the host itself, also by 127.0.0.1, and from the containers; nothing else let in from outside.
 */
function tableText({ table, bridge, subnet }: Firewall): string {
  return `add table ip ${table}
delete table ip ${table}
table ip ${table} {
  map tcp_any { type inet_service : ipv4_addr . inet_service; }
  map udp_any { type inet_service : ipv4_addr . inet_service; }
  map tcp_one { type ipv4_addr . inet_service : ipv4_addr . inet_service; }
  map udp_one { type ipv4_addr . inet_service : ipv4_addr . inet_service; }
  chain published {
    dnat ip to ip daddr . tcp dport map @tcp_one
    dnat ip to ip daddr . udp dport map @udp_one
    dnat ip to tcp dport map @tcp_any
    dnat ip to udp dport map @udp_any
  }
  chain prerouting { type nat hook prerouting priority dstnat; fib daddr type local jump published; }
  chain output { type nat hook output priority -100; fib daddr type local jump published; }
  chain postrouting {
    type nat hook postrouting priority srcnat;
    ip saddr ${subnet} oifname != "${bridge}" masquerade
    oifname "${bridge}" ip saddr 127.0.0.0/8 masquerade
    oifname "${bridge}" ip saddr ${subnet} ct status dnat masquerade
  }
  chain raw {
    type filter hook prerouting priority raw;
    iifname "${bridge}" ip daddr 127.0.0.0/8 drop
  }
  chain forward {
    type filter hook forward priority filter;
    iifname "${bridge}" accept
    oifname "${bridge}" ct state established,related accept
    oifname "${bridge}" ct status dnat accept
    oifname "${bridge}" drop
  }
}
`;
}

/** Makes the table anew, with these ports in it. */
export async function makeFirewall(firewall: Firewall, ports: readonly PublishedPort[]): Promise<void> {
  await networkCommand('nft', ['-f', '-'], tableText(firewall) + elementLines('add', firewall.table, ports).join(''));
}

/** Publishes ports. False when the table is not there any more (someone flushed the rules): the caller makes it anew. */
export async function publish(firewall: Firewall, ports: readonly PublishedPort[]): Promise<boolean> {
  if (ports.length === 0) return true;
  try {
    await networkCommand('nft', ['-f', '-'], elementLines('add', firewall.table, ports).join(''));
    return true;
  } catch (error) {
    if ((error as Error).message.includes('No such file or directory')) return false;
    throw error;
  }
}

/** Takes published ports away; those gone already are no error. */
export async function unpublish(firewall: Firewall, ports: readonly PublishedPort[]): Promise<void> {
  if (ports.length === 0) return;
  const lines = elementLines('delete', firewall.table, ports);
  try {
    await networkCommand('nft', ['-f', '-'], lines.join(''));
  } catch {
    // One that is missing undoes the whole batch: then one by one.
    for (const line of lines) await networkCommand('nft', ['-f', '-'], line).catch(() => '');
  }
}

function elementLines(verb: 'add' | 'delete', table: string, ports: readonly PublishedPort[]): string[] {
  // Those of IPv6 addresses are carried by hand (ports.ts).
  const ours = ports.filter((port) => !port.hostIp.includes(':'));
  return ours.map((port) => {
    const any = port.hostIp === '' || port.hostIp === '0.0.0.0';
    const key = any ? `${port.hostPort}` : `${port.hostIp} . ${port.hostPort}`;
    const value = verb === 'add' ? ` : ${port.containerIp} . ${port.containerPort}` : '';
    return `${verb} element ip ${table} ${port.protocol}_${any ? 'any' : 'one'} { ${key}${value} }\n`;
  });
}

/**
 * A host whose own rules drop what is forwarded (docker's daemon sets that policy) would cut the bridge off: what our table accepts
 * must be accepted there too. Nothing happens when the policy accepts, or there is no iptables.
 */
export async function passForwardPolicy(bridge: string): Promise<void> {
  let rules: string;
  try {
    rules = await networkCommand('iptables', ['-w', '-S', 'FORWARD']);
  } catch {
    return;
  }
  if (!rules.includes('-P FORWARD DROP')) return;
  for (const direction of ['-i', '-o']) {
    if (rules.includes(`-A FORWARD ${direction} ${bridge} -j ACCEPT`)) continue;
    await networkCommand('iptables', ['-w', '-I', 'FORWARD', direction, bridge, '-j', 'ACCEPT']);
  }
}
