import { PgError } from '../mdm/error.ts';

/** What a container has unless told otherwise (moby, oci/caps/defaults.go). */
const DEFAULT = `CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE`;

/** All of Linux by number (linux/capability.h). */
const ALL = `CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST
NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE
SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND
AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE`;

const names = (text: string): string[] => text.split(/\s+/).map((word) => `CAP_${word}`);
const ALL_CAPABILITIES = names(ALL);

/** The name as the kernel has it: `net_admin` and `CAP_NET_ADMIN` are the same; PgError('BAD_CAPABILITY') for one that Linux has not. */
export function capabilityName(word: string): string {
  const upper = word.toUpperCase();
  if (upper === 'ALL') return upper;
  const name = upper.startsWith('CAP_') ? upper : `CAP_${upper}`;
  if (ALL_CAPABILITIES.includes(name)) return name;
  throw new PgError('BAD_CAPABILITY', `unknown capability: ${word}`, {
    hint: 'see capabilities(7), for example NET_ADMIN',
  });
}

/**
 * The capabilities of a container in the kernel's order. `bounding` (hex, CapBnd of /proc/self/status) is what we have to give:
 * what is asked for by ALL or --privileged is cut to it, what is asked for by name is not (the runtime then says what fails).
 */
export function containerCapabilities(add: string[], drop: string[], privileged: boolean, bounding: bigint): string[] {
  const adds = add.map(capabilityName);
  const drops = drop.map(capabilityName);
  const all = privileged || adds.includes('ALL');
  const base = all
    ? ALL_CAPABILITIES.filter((_, number) => ((bounding >> BigInt(number)) & 1n) === 1n)
    : drops.includes('ALL')
      ? []
      : names(DEFAULT);
  const chosen = new Set([...base, ...adds.filter((name) => name !== 'ALL')]);
  for (const name of drops) if (!adds.includes(name) || all) chosen.delete(name);
  return ALL_CAPABILITIES.filter((name) => chosen.has(name));
}

/** CapBnd of this process (proc(5)). */
export function boundingSet(status: string): bigint {
  const match = /^CapBnd:\s*([0-9a-f]+)/m.exec(status);
  return match === null ? 0n : BigInt(`0x${match[1]}`);
}
