import { readFileSync, readlinkSync } from 'node:fs';
import type { Attr } from '../view/view.ts';
import type { Request } from './request.ts';

/**
 * What the process behind a request may do beyond its user and group, which is all that a request tells: from /proc/PID/status (proc(5)).
 * Only for the few operations where the kernel leaves such a question to the server, and rarely then: it costs two system calls.
 */

/** capabilities(7). */
const CAP_FSETID = 4;
export const CAP_SYS_ADMIN = 21;

const S_ISUID = 0o4000;
const S_ISGID = 0o2000;
const S_IXGRP = 0o0010;

/** Capabilities in a user namespace of its own count for nothing on a filesystem of the host's. */
const ownNamespace = readlinkSync('/proc/self/ns/user');

/**
 * Whether the caller has this capability. A caller that cannot be looked at (of a process namespace that does not show it here, or killed
 * meanwhile) has what its user number says: all of them for root, none for others.
 */
export function callerHas(request: Request, capability: number): boolean {
  const { pid, uid } = request;
  if (pid === 0) return uid === 0;
  try {
    const effective = field(readFileSync(`/proc/${pid}/status`, 'latin1'), 'CapEff');
    const has = (BigInt(`0x${effective}`) >> BigInt(capability)) & 1n;
    return has === 1n && readlinkSync(`/proc/${pid}/ns/user`) === ownNamespace;
  } catch {
    return uid === 0;
  }
}

/**
 * The permission bits that are left of a regular file when the caller changes its contents; undefined when all stay. setuid goes unless the caller has
 * CAP_FSETID, and setgid if the group may execute or the caller is not of it (the kernel's setattr_should_drop_suidgid).
 */
export function modeAfterChange(request: Request, { mode, gid }: Attr): number | undefined {
  const drops = (mode & S_ISUID) | droppedSgid(request, mode, gid);
  return drops === 0 || callerHas(request, CAP_FSETID) ? undefined : mode & 0o7777 & ~drops;
}

/** Like `modeAfterChange`, for a caller of whom the kernel said that it lacks CAP_FSETID. */
export function modeAfterKill(request: Request, { mode, gid }: Attr): number | undefined {
  const drops = (mode & S_ISUID) | droppedSgid(request, mode, gid);
  return drops === 0 ? undefined : mode & 0o7777 & ~drops;
}

function droppedSgid(request: Request, mode: number, gid: number): number {
  return (mode & S_ISGID) !== 0 && ((mode & S_IXGRP) !== 0 || !callerIsOf(request, gid)) ? S_ISGID : 0;
}

/** Whether the caller is of this group, be it its own or one of its supplementary ones. */
function callerIsOf(request: Request, gid: number): boolean {
  if (request.gid === gid) return true;
  try {
    const groups = field(readFileSync(`/proc/${request.pid}/status`, 'latin1'), 'Groups');
    return groups.split(' ').includes(String(gid));
  } catch {
    return false;
  }
}

/** The value of a line `NAME:\tVALUE`. */
function field(status: string, name: string): string {
  return new RegExp(`^${name}:\\t(.*)$`, 'm').exec(status)?.[1]?.trim() ?? '';
}
