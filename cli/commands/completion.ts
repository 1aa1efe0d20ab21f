import { Args } from '@oclif/core';
import { PgCommand } from '../base.ts';

const SCRIPTS: Record<string, string> = {
  // Bash takes a colon for the end of a word: what stands before the last one is not to be given back.
  bash: `_pg() {
  local line="\${COMP_LINE:0:COMP_POINT}" typed colon="" found
  local -a words
  read -ra words <<<"$line"
  [[ "$line" == *[[:space:]] ]] && words+=("")
  typed="\${words[\${#words[@]}-1]}"
  [[ "$COMP_WORDBREAKS" == *:* ]] && colon="\${typed%"\${typed##*:}"}"
  COMPREPLY=()
  while IFS= read -r found; do
    [[ -n "$found" ]] && COMPREPLY+=("\${found#"$colon"}")
    [[ "$found" == */ ]] && compopt -o nospace 2>/dev/null
  done < <(pg complete --words -- "\${words[@]:1}" 2>/dev/null)
}
complete -o default -F _pg pg
`,
  zsh: `#compdef pg
_pg() {
  local -a found
  found=("\${(@f)$(pg complete --words -- "\${(@)words[2,CURRENT]}" 2>/dev/null)}")
  if [[ -n "\${found[1]}" ]]; then compadd -a found; else _files; fi
}
compdef _pg pg
`,
  fish: `function __pg_words
  set -l words (commandline -opc) (commandline -ct)
  set -l found (pg complete --words -- $words[2..-1] 2>/dev/null)
  if test (count $found) -gt 0
    printf '%s\\n' $found
  else
    __fish_complete_path (commandline -ct)
  end
end
complete -c pg -f -a '(__pg_words)'
`,
};

export default class Completion extends PgCommand {
  static override summary =
    'Print the shell completion script: commands, flags, and the names of images and containers.';
  static override examples = [
    {
      description: 'bash, now and in every new shell',
      command:
        'eval "$(<%= config.bin %> completion bash)"; <%= config.bin %> completion bash > /etc/bash_completion.d/pg',
    },
    { description: 'zsh', command: '<%= config.bin %> completion zsh > "${fpath[1]}/_pg"' },
    { description: 'fish', command: '<%= config.bin %> completion fish > ~/.config/fish/completions/pg.fish' },
  ];
  static override args = {
    shell: Args.string({ description: 'the shell', options: Object.keys(SCRIPTS), required: true }),
  };

  async run(): Promise<void> {
    const { args } = await this.parse(Completion);
    process.stdout.write(SCRIPTS[args.shell]!);
  }
}
