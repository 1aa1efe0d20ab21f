import { PgError } from '../../mdm/error.ts';

/** What an image runs on, in Go's words (OCI image-spec, image-index.md, `platform`). */
export interface Platform {
  os: string;
  architecture: string;
  variant?: string;
}

const COMPONENT = /^[A-Za-z0-9_][A-Za-z0-9_.-]*$/;
const SYSTEMS = ['linux', 'windows', 'darwin', 'macos', 'freebsd'];

/** Names people use, and what Go calls them (containerd platforms/database.go normalises the same ones). */
const ARCHITECTURES = new Map<string, readonly [architecture: string, variant?: string]>([
  ['i386', ['386']],
  ['ia32', ['386']],
  ['x64', ['amd64']],
  ['x86_64', ['amd64']],
  ['x86-64', ['amd64']],
  ['aarch64', ['arm64']],
  ['armhf', ['arm', 'v7']],
  ['armel', ['arm', 'v6']],
]);

/** The platform of this machine, as an image names it. */
export function hostPlatform(): Platform {
  return normalise('linux', process.arch === 'arm' ? 'armhf' : process.arch, undefined);
}

/**
 * `os/arch[/variant]` as `--platform` takes it; a lone word is a system (with this machine's architecture) or an
 * architecture of linux. Throws PLATFORM_INVALID.
 */
export function parsePlatform(text: string): Platform {
  const parts = text.split('/');
  if (parts.length > 3 || !parts.every((part) => COMPONENT.test(part))) {
    throw new PgError('PLATFORM_INVALID', `'${text}' is not a platform`, {
      hint: 'write os/arch or os/arch/variant, for example linux/amd64 or linux/arm/v7',
    });
  }
  const [first = '', second, variant] = parts;
  if (second === undefined && SYSTEMS.includes(first))
    return { ...hostPlatform(), os: normalise(first, '', undefined).os };
  return second === undefined ? normalise('linux', first, undefined) : normalise(first, second, variant);
}

/** `os/arch[/variant]`. */
export function formatPlatform(platform: Platform): string {
  const { os, architecture, variant } = platform;
  return variant ? `${os}/${architecture}/${variant}` : `${os}/${architecture}`;
}

/**
 * How well an image for `have` runs where `want` is asked: 0 = not at all, higher is better.
 * A machine of arm v7 also runs v6 and v5 (best first); no variant on arm means v7, and v8 on arm64 (containerd
 * platforms/compare.go).
 */
export function platformFitness(want: Platform, have: Platform): number {
  const w = normalise(want.os, want.architecture, want.variant);
  const h = normalise(have.os, have.architecture, have.variant);
  if (w.os !== h.os || w.architecture !== h.architecture) return 0;
  if (w.variant === h.variant) return 100;
  if (w.architecture === 'arm') {
    const [from, to] = [armLevel(h.variant), armLevel(w.variant)];
    return from > 0 && from < to ? from : 0;
  }
  // amd64/v2 code needs a v2 machine; plain amd64 code runs on any of them.
  return h.variant === undefined ? 50 : 0;
}

function armLevel(variant: string | undefined): number {
  const match = /^v([5-8])$/.exec(variant ?? 'v7');
  return match ? Number(match[1]) : 0;
}

function normalise(os: string, architecture: string, variant: string | undefined): Platform {
  const lower = architecture.toLowerCase();
  const [name, impliedVariant] = ARCHITECTURES.get(lower) ?? [lower];
  let chosen = (variant === '' ? undefined : variant?.toLowerCase()) ?? impliedVariant;
  if (chosen !== undefined && /^\d+$/.test(chosen)) chosen = `v${chosen}`;
  if (name === 'arm' && chosen === undefined) chosen = 'v7';
  if ((name === 'arm64' && chosen === 'v8') || (name === 'amd64' && chosen === 'v1')) chosen = undefined;
  const system = os.toLowerCase() === 'macos' ? 'darwin' : os.toLowerCase();
  return { os: system, architecture: name, ...(chosen === undefined ? {} : { variant: chosen }) };
}
