use serde_json::{Value, json};

use super::vocabulary::{byte_level, bytes, noon, text, text_with_template};
use crate::text::{ChatPrompt, TemplateError, Text, TextError, TextFiles};

fn prompt(messages: Value) -> ChatPrompt {
    let Value::Array(messages) = messages else { panic!("messages are a list") };
    ChatPrompt { messages, add_generation_prompt: true, ..ChatPrompt::default() }
}

fn hello() -> ChatPrompt {
    prompt(json!([{"role": "user", "content": "hello"}]))
}

fn render(template: &str, prompt: &ChatPrompt) -> Result<String, TemplateError> {
    text_with_template(&json!(template)).unwrap().render_chat(prompt)
}

/// Expected texts are what Jinja2 gives with `trim_blocks` and `lstrip_blocks`.
#[test]
fn templates_are_read_as_transformers_reads_them() {
    let chatml = "\
        {%- for message in messages %}\n\
        {{- '<|im_start|>' + message['role'] + '\\n' + message.content.strip() + '<|im_end|>' + '\\n' }}\n\
        {%- endfor %}\n\
        {%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n{%- endif %}\n";
    let two =
        prompt(json!([{"role": "system", "content": " be brief "}, {"role": "user", "content": "hello"}]));
    assert_eq!(
        render(chatml, &two).unwrap(),
        "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    );
    let cases = [
        (
            "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}{{ eos_token }}",
            "<|begin|>hello<|end|>",
        ),
        ("  {% if true %}\nx\n  {% endif %}\ny", "x\ny"),
        ("{% for m in [1, 2, 3] %}{% if m == 2 %}{% continue %}{% endif %}{{ m }}{% endfor %}", "13"),
        ("{% for m in [1, 2, 3] %}{% if m == 2 %}{% break %}{% endif %}{{ m }}{% endfor %}", "1"),
        ("{{ [1, 2, 3][::-1] | join(',') }}", "3,2,1"),
        ("{% for k, v in {'role': 'user', 'n': 1}.items() %}{{ k }}={{ v }};{% endfor %}", "role=user;n=1;"),
        ("{{ 'a,b'.split(',')[1].upper() }}{{ ' x'.lstrip() }}{{ 'xy'.startswith('x') }}", "BxTrue"),
        (
            "{% set ns = namespace(n=0) %}{% for m in [1, 2] %}{% set ns.n = ns.n + m %}{% endfor %}{{ ns.n }}",
            "3",
        ),
        (
            "{{ {'a': '<&\\'é', 'b': [1, 2.0, none, true]} | tojson }}",
            "{\"a\": \"<&'é\", \"b\": [1, 2.0, null, true]}",
        ),
        ("{{ {'a': [1]} | tojson(indent=2) }}", "{\n  \"a\": [\n    1\n  ]\n}"),
        (
            "{% if tools %}t{% endif %}{% if tools is none %}n{% endif %}{% if x is defined %}d{% endif %}",
            "n",
        ),
        ("a{% generation %}b{%- endgeneration -%} c", "abc"),
        ("{{ strftime_now('%d %b %Y') }}", "22 Aug 2026"),
        ("{{ '<b>' }}", "<b>"),
    ];
    for (template, expected) in cases {
        assert_eq!(render(template, &hello()).as_deref(), Ok(expected), "{template}");
    }
}

#[test]
fn a_template_may_refuse_in_its_own_words() {
    let template = "{% macro check(m) %}{% if m.role != 'system' %}{{ raise_exception('system first') }}{% endif %}\
                    {% endmacro %}{{ check(messages[0]) }}";
    assert_eq!(render(template, &hello()), Err(TemplateError::Refused("system first".to_owned())));
    assert!(matches!(render("{{ messages[0].content.nope() }}", &hello()), Err(TemplateError::Failed(_))));
}

#[test]
fn a_hostile_template_is_stopped() {
    let endless = "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}";
    assert!(matches!(render(endless, &hello()), Err(TemplateError::Failed(_))));
    let endless_macro = "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}";
    assert!(matches!(render(endless_macro, &hello()), Err(TemplateError::Failed(_))));
    let long = "{% for a in range(90000) %}{{ 'x' * 1000 }}{% endfor %}";
    assert_eq!(render(long, &hello()), Err(TemplateError::TooLong { bytes_max: 16 << 20 }));
    assert!(matches!(
        text_with_template(&json!("{% if %}")),
        Err(TextError::Template(TemplateError::Invalid(_)))
    ));
}

#[test]
fn templates_are_found_where_checkpoints_put_them() {
    let named = json!([{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]);
    assert_eq!(text_with_template(&named).unwrap().render_chat(&hello()).unwrap(), "d");
    let none_default = text_with_template(&json!([{"name": "tool_use", "template": "t"}])).unwrap();
    assert!(!none_default.has_chat_template());
    assert_eq!(text(&byte_level()).render_chat(&hello()), Err(TemplateError::Missing));
    assert!(matches!(text_with_template(&json!(7)), Err(TextError::Invalid { .. })));

    let files = TextFiles {
        tokenizer: bytes(&byte_level()),
        tokenizer_config: Some(bytes(&json!({"chat_template": "from the config"}))),
        chat_template: Some(b"from its file".to_vec()),
        ..TextFiles::default()
    };
    assert_eq!(Text::from_files(&files, noon).unwrap().render_chat(&hello()).unwrap(), "from its file");
}

#[test]
fn a_template_writes_the_beginning_itself() {
    let text = text_with_template(&json!("{{ bos_token }}{{ messages[0].content }}")).unwrap();
    let tokens = text.encode_chat(&hello()).unwrap();
    assert_eq!(tokens, text.encode("hello", true).unwrap());
    assert_eq!(tokens.iter().filter(|token| **token == tokens[0]).count(), 1);
}
