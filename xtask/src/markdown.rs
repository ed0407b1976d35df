//! Finds the fenced blocks of a Markdown document that are meant to be run.

/// A fenced block and where its text begins.
#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    /// Of the first line of the text, counted from 1.
    pub line: usize,
    pub text: String,
}

/// The blocks whose fence says exactly `sh`. Fences may be indented, as in lists, and may be longer than three.
pub fn shell_blocks(document: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = document.lines().enumerate();
    while let Some((_, line)) = lines.next() {
        let Some(fence) = Fence::opening(line) else {
            continue;
        };
        let mut block = Block {
            line: 0,
            text: String::new(),
        };
        for (number, line) in lines.by_ref() {
            if fence.is_closed_by(line) {
                break;
            }
            if block.line == 0 {
                block.line = number + 1;
            }
            block.text.push_str(fence.dedent(line));
            block.text.push('\n');
        }
        if fence.info == "sh" && block.line > 0 {
            blocks.push(block);
        }
    }
    blocks
}

struct Fence<'a> {
    indent: usize,
    mark: char,
    length: usize,
    info: &'a str,
}

impl<'a> Fence<'a> {
    fn opening(line: &'a str) -> Option<Self> {
        let rest = line.trim_start_matches(' ');
        let mark = rest.chars().next().filter(|mark| matches!(mark, '`' | '~'))?;
        let length = rest.chars().take_while(|character| *character == mark).count();
        let info = rest[length..].trim();
        // A line of code in backticks is no fence.
        let fence = length >= 3 && !(mark == '`' && info.contains('`'));
        fence.then_some(Fence {
            indent: line.len() - rest.len(),
            mark,
            length,
            info,
        })
    }

    fn is_closed_by(&self, line: &str) -> bool {
        let line = line.trim();
        line.len() >= self.length && line.chars().all(|character| character == self.mark)
    }

    fn dedent<'line>(&self, line: &'line str) -> &'line str {
        let spaces = line.len() - line.trim_start_matches(' ').len();
        &line[spaces.min(self.indent)..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sh_blocks_are_taken_with_their_lines() {
        let document = "# Title\n\n```sh\none\ntwo\n```\n\n```console\n$ no\n```\n~~~sh\nthree\n~~~\n";
        let blocks = shell_blocks(document);
        assert_eq!(
            blocks,
            [
                Block {
                    line: 4,
                    text: "one\ntwo\n".into()
                },
                Block {
                    line: 12,
                    text: "three\n".into()
                }
            ]
        );
    }

    #[test]
    fn a_block_in_a_list_loses_its_indentation_and_nothing_more() {
        let blocks = shell_blocks("1. do\n\n   ```sh\n   cat <<E\n     x\n   E\n   ```\n");
        assert_eq!(blocks[0].text, "cat <<E\n  x\nE\n");
    }

    #[test]
    fn a_fence_inside_a_longer_fence_is_text() {
        assert!(shell_blocks("````md\n```sh\nno\n```\n````\n").is_empty());
        assert!(shell_blocks("```sh\n```\n").is_empty());
        assert!(shell_blocks("```sh run=no\nno\n```\n").is_empty());
    }
}
