import { FsError } from './error.ts';

/**
 * POSIX ACLs as the kernel and getfacl(1) carry them in extended attributes: u32 version 2, then entries of u16 tag, u16 permissions, u32 id, little-endian
 * (include/uapi/linux/posix_acl_xattr.h).
 */
export const ACCESS_ACL = 'system.posix_acl_access';
export const DEFAULT_ACL = 'system.posix_acl_default';

const USER_OBJ = 1;
const USER = 2;
const GROUP_OBJ = 4;
const GROUP = 8;
const MASK = 16;
const OTHER = 32;

interface AclEntry {
  tag: number;
  perm: number;
  id: number;
}

/** The entries, checked as the kernel's posix_acl_valid does. FsError EINVAL, EOPNOTSUPP (another version). */
export function parseAcl(value: Uint8Array): AclEntry[] {
  const view = new DataView(value.buffer, value.byteOffset, value.length);
  if (value.length < 4 || (value.length - 4) % 8 !== 0) throw new FsError('EINVAL', 'ACL length');
  if (view.getUint32(0, true) !== 2) throw new FsError('EOPNOTSUPP', 'ACL version');
  const entries: AclEntry[] = [];
  for (let at = 4; at < value.length; at += 8) {
    entries.push({
      tag: view.getUint16(at, true),
      perm: view.getUint16(at + 2, true),
      id: view.getUint32(at + 4, true),
    });
  }
  if (entries.length > 0) checkOrder(entries);
  return entries;
}

function checkOrder(entries: readonly AclEntry[]): void {
  const tags = [USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER];
  let last = 0;
  for (const { tag, perm } of entries) {
    const isRepeatable = tag === USER || tag === GROUP;
    if (!tags.includes(tag) || perm > 7 || tag < last || (tag === last && !isRepeatable))
      throw new FsError('EINVAL', 'ACL entries');
    last = tag;
  }
  const has = (tag: number): boolean => entries.some((entry) => entry.tag === tag);
  const needsMask = has(USER) || has(GROUP);
  if (!has(USER_OBJ) || !has(GROUP_OBJ) || !has(OTHER) || (needsMask && !has(MASK)))
    throw new FsError('EINVAL', 'ACL incomplete');
}

export function formatAcl(entries: readonly AclEntry[]): Uint8Array {
  const value = new Uint8Array(4 + 8 * entries.length);
  const view = new DataView(value.buffer);
  view.setUint32(0, 2, true);
  entries.forEach(({ tag, perm, id }, i) => {
    view.setUint16(4 + 8 * i, tag, true);
    view.setUint16(6 + 8 * i, perm, true);
    view.setUint32(8 + 8 * i, id, true);
  });
  return value;
}

/** Whether the ACL says no more than permission bits can. */
const isMinimal = (entries: readonly AclEntry[]): boolean => entries.length === 3;

/** The entry that the group bits of the mode stand for. */
const groupClass = (entries: readonly AclEntry[]): AclEntry | undefined =>
  entries.find((entry) => entry.tag === MASK) ?? entries.find((entry) => entry.tag === GROUP_OBJ);

const find = (entries: readonly AclEntry[], tag: number): AclEntry | undefined =>
  entries.find((entry) => entry.tag === tag);

/** The mode of a file that gets this access ACL, and the value to keep: undefined when the mode says it all (posix_acl_update_mode). */
export function modeOfAcl(value: Uint8Array, mode: number): { mode: number; value: Uint8Array | undefined } {
  const entries = parseAcl(value);
  if (entries.length === 0) return { mode, value: undefined };
  const bits =
    ((find(entries, USER_OBJ)?.perm ?? 0) << 6) |
    ((groupClass(entries)?.perm ?? 0) << 3) |
    (find(entries, OTHER)?.perm ?? 0);
  return { mode: (mode & ~0o777) | bits, value: isMinimal(entries) ? undefined : value };
}

/** The access ACL after chmod(2) to `mode` (posix_acl_chmod). */
export function chmodAcl(value: Uint8Array, mode: number): Uint8Array {
  const entries = parseAcl(value);
  setClasses(entries, mode);
  return formatAcl(entries);
}

/**
 * What a new file gets from its directory's default ACL (posix_acl_create): its mode, cut down by the ACL, and the access ACL where the mode does not say it all.
 */
export function inheritAcl(defaultAcl: Uint8Array, mode: number): { mode: number; access: Uint8Array | undefined } {
  const entries = parseAcl(defaultAcl);
  const user = find(entries, USER_OBJ);
  const group = groupClass(entries);
  const other = find(entries, OTHER);
  if (user === undefined || group === undefined || other === undefined) return { mode, access: undefined };
  user.perm &= (mode >> 6) & 7;
  group.perm &= (mode >> 3) & 7;
  other.perm &= mode & 7;
  const bits = (user.perm << 6) | (group.perm << 3) | other.perm;
  return { mode: (mode & ~0o777) | bits, access: isMinimal(entries) ? undefined : formatAcl(entries) };
}

function setClasses(entries: readonly AclEntry[], mode: number): void {
  const user = find(entries, USER_OBJ);
  const group = groupClass(entries);
  const other = find(entries, OTHER);
  if (user !== undefined) user.perm = (mode >> 6) & 7;
  if (group !== undefined) group.perm = (mode >> 3) & 7;
  if (other !== undefined) other.perm = mode & 7;
}
