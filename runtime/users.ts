import { PgError } from '../mdm/error.ts';

/** Who a process of a container is, by number (OCI runtime spec, config.md, User). */
export interface ResolvedUser {
  uid: number;
  gid: number;
  additionalGids: number[];
  home: string;
}

interface PasswdEntry {
  name: string;
  uid: number;
  gid: number;
  home: string;
}

interface GroupEntry {
  name: string;
  gid: number;
  members: string[];
}

const ID_MAX = 2 ** 31 - 1;

function lines(text: string): string[][] {
  return text
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => line.split(':'));
}

/** passwd(5): name, password, uid, gid, comment, home, shell. */
function parsePasswd(text: string): PasswdEntry[] {
  return lines(text).map((f) => ({ name: f[0]!, uid: Number(f[2]), gid: Number(f[3]), home: f[5] ?? '' }));
}

/** group(5): name, password, gid, members. */
function parseGroup(text: string): GroupEntry[] {
  return lines(text).map((f) => ({ name: f[0]!, gid: Number(f[2]), members: (f[3] ?? '').split(',').filter(Boolean) }));
}

function numeric(word: string): number | undefined {
  if (!/^\d+$/.test(word)) return undefined;
  const id = Number(word);
  if (id > ID_MAX) throw new PgError('BAD_USER', `uids and gids must be in range 0-${ID_MAX}: ${word}`);
  return id;
}

/**
 * What `USER` of an image or `--user` means in a container: `name`, `uid`, `name:group`, `uid:gid`; empty is root.
 * `passwd` and `group` are the texts of the container's files (empty when it has none).
 * `groupAdd` are more groups, by name or number. PgError('BAD_USER') when a name is not there.
 */
export function resolveUser(
  spec: string,
  passwd: string,
  group: string,
  groupAdd: readonly string[] = [],
): ResolvedUser {
  const at = spec.indexOf(':');
  const userWord = (at < 0 ? spec : spec.slice(0, at)) || '0';
  const groupWord = at < 0 ? '' : spec.slice(at + 1);
  const users = parsePasswd(passwd);
  const groups = parseGroup(group);

  const uid = numeric(userWord);
  const user = users.find((u) => u.name === userWord) ?? users.find((u) => u.uid === uid);
  if (user === undefined && uid === undefined) {
    throw new PgError('BAD_USER', `unable to find user ${userWord}: no matching entries in passwd file`, {
      hint: "a number works without an entry in the container's /etc/passwd",
    });
  }
  const result: ResolvedUser = {
    uid: user?.uid ?? uid!,
    gid: user?.gid ?? 0,
    additionalGids: [],
    home: user?.home || '/',
  };
  if (groupWord !== '') {
    result.gid = resolveGroup(groupWord, groups);
  } else if (user !== undefined) {
    const member = groups.filter((g) => g.members.includes(user.name)).map((g) => g.gid);
    result.additionalGids = [...new Set(member)].filter((gid) => Number.isInteger(gid));
  }
  // As login(1) has it: a process that gives its group away (a setgid program) stays in it, else it would lose what the group is denied.
  if (!result.additionalGids.includes(result.gid)) result.additionalGids.unshift(result.gid);
  for (const word of groupAdd) {
    const gid = resolveGroup(word, groups);
    if (!result.additionalGids.includes(gid)) result.additionalGids.push(gid);
  }
  return result;
}

function resolveGroup(word: string, groups: readonly GroupEntry[]): number {
  const gid = numeric(word);
  const found = groups.find((g) => g.name === word);
  if (found === undefined && gid === undefined) {
    throw new PgError('BAD_USER', `unable to find group ${word}: no matching entries in group file`);
  }
  return found?.gid ?? gid!;
}
