import { visible } from '../../mdm/visible.ts';
import type { Hook } from '@oclif/core/hooks';
import { EXIT_ENGINE } from '../exit-codes.ts';

/** What docker's users type, and what it is called here. */
const DOCKER_WORDS: Record<string, string> = {
  build: "podman build makes images; 'pg import' takes them from there",
  builder: "podman build makes images; 'pg import' takes them from there",
  checkpoint: "'pg snapshot create' keeps a state of the files; memory is not kept",
  container: "'pg ps' lists containers; their commands stand alone: 'pg rm', 'pg inspect', 'pg prune'",
  context: "'pg peer ls' lists the nodes that are known",
  events: "'pg ps' and 'pg logs' say how containers are doing",
  history: "'pg inspect IMAGE' shows an image's layers; 'pg log CONTAINER' a container's commits",
  image: "'pg images' lists images; their commands stand alone: 'pg rmi', 'pg inspect', 'pg import', 'pg prune'",
  info: "'pg doctor' says what this machine can do",
  load: "'pg import docker-archive:FILE'",
  manifest: "'pg import --all-platforms' and 'pg push --all-platforms' take all images of an index along",
  network: "'pg run --network bridge|host|none'; there are no networks to manage",
  pause: "there is no pause; 'pg stop' and 'pg start' keep the files",
  pull: "'pg import NAME'",
  save: "'pg export IMAGE docker-archive:FILE'",
  search: "'pg import NAME' takes an image from a registry that is known by name",
  system:
    "'pg df' says what the disk is used for, 'pg gc' gives back what nothing needs, 'pg doctor' says what this machine can do",
  version: "'pg --version'",
  volume: "'pg run -v NAME:/PATH' makes named volumes",
};

/** `pg imprt`: says so as docker does, with the nearest command there is. */
const commandNotFound: Hook.CommandNotFound = async function ({ config, id }) {
  const words = id.split(':');
  const typed = words[0]!;
  const isTopic = config.commands.some((c) => c.id.startsWith(`${typed}:`));
  if (words.length > 1 && (isTopic || config.findCommand(typed) !== undefined)) {
    // oclif takes what follows a command that has no arguments for a part of its name.
    const wrong = isTopic
      ? `'${words.slice(0, 2).join(' ')}' is not a pg command`
      : `pg ${typed} takes no '${words[1]}'`;
    process.stderr.write(visible(`pg: ${wrong}\n    see 'pg ${typed} --help'\n`));
    this.exit(EXIT_ENGINE);
  }
  const known = [...new Set(config.commands.filter((c) => !c.hidden).map((c) => c.id.split(':')[0]!))];
  const nearest = known.toSorted((a, b) => distance(typed, a) - distance(typed, b))[0];
  const near = nearest !== undefined && distance(typed, nearest) <= 2 ? `did you mean 'pg ${nearest}'? ` : '';
  const guess = Object.hasOwn(DOCKER_WORDS, typed) ? `${DOCKER_WORDS[typed]}; ` : near;
  process.stderr.write(visible(`pg: '${typed}' is not a pg command\n    ${guess}see 'pg --help'\n`));
  this.exit(EXIT_ENGINE);
};

/** Edits from one word to the other (Levenshtein). */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next.push(Math.min(next[j - 1]! + 1, row[j]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)));
    }
    row = next;
  }
  return row[b.length]!;
}

export default commandNotFound;
