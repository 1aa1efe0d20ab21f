import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ContainerConfig, NetworkState } from '../record.ts';

const LOCAL_STUB = /^127\./;
const PUBLIC_RESOLVERS = ['8.8.8.8', '8.8.4.4'];

/** Writes the container's /etc/hosts, /etc/hostname and /etc/resolv.conf into `dir`; their paths. */
export function writeEtcFiles(
  dir: string,
  config: ContainerConfig,
  hostname: string,
  network: NetworkState | null,
): { hosts: string; hostname: string; resolvConf: string } {
  const paths = { hosts: join(dir, 'hosts'), hostname: join(dir, 'hostname'), resolvConf: join(dir, 'resolv.conf') };
  writeFileSync(paths.hosts, hostsText(config, hostname, network));
  writeFileSync(paths.hostname, `${hostname}\n`);
  writeFileSync(paths.resolvConf, resolvText(config));
  return paths;
}

function hostsText(config: ContainerConfig, hostname: string, network: NetworkState | null): string {
  const lines = [
    '127.0.0.1\tlocalhost',
    '::1\tlocalhost ip6-localhost ip6-loopback',
    'fe00::\tip6-localnet',
    'ff00::\tip6-mcastprefix',
    'ff02::1\tip6-allnodes',
    'ff02::2\tip6-allrouters',
    ...config.extraHosts.map((entry) => {
      const at = entry.indexOf(':');
      const address = entry.slice(at + 1);
      return `${address === 'host-gateway' ? (network?.gateway ?? '127.0.0.1') : address}\t${entry.slice(0, at)}`;
    }),
  ];
  if (config.network === 'host') {
    const own = read('/etc/hosts');
    if (own !== '')
      return `${own.trimEnd()}\n${lines
        .slice(6)
        .map((l) => `${l}\n`)
        .join('')}`;
  }
  if (network !== null) lines.push(`${network.ip}\t${hostname}`);
  return `${lines.join('\n')}\n`;
}

/**
 * The host's resolv.conf (resolv.conf(5)). A resolver on the host's loopback cannot be reached from a bridge: then the servers behind
 * systemd-resolved are used, and without those public ones, as docker does.
 */
function resolvText(config: ContainerConfig): string {
  if (config.dns.length > 0) return config.dns.map((server) => `nameserver ${server}\n`).join('');
  const host = read('/etc/resolv.conf');
  if (config.network === 'host') return host;
  const text = usable(host) ? host : read('/run/systemd/resolve/resolv.conf');
  const kept = text
    .split('\n')
    .filter((line) => !/^\s*nameserver\s+(127\.|::1)/.test(line))
    .join('\n');
  if (usable(kept)) return `${kept.trimEnd()}\n`;
  const rest = host.split('\n').filter((line) => /^\s*(search|domain|options)\s/.test(line));
  return [...rest, ...PUBLIC_RESOLVERS.map((s) => `nameserver ${s}`)].map((line) => `${line}\n`).join('');
}

const usable = (text: string): boolean => servers(text).some((s) => !LOCAL_STUB.test(s) && s !== '::1');
const servers = (text: string): string[] => [...text.matchAll(/^\s*nameserver\s+(\S+)/gm)].map((m) => m[1]!);

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
