// Runs once for each live block (ui/frame/live.py). `element` is the block: it stays when its content is replaced.
const fieldsOf = form => {
  const fields = {};
  for (const input of form.elements) {
    if (!input.name || input.disabled || (input.type === 'radio' && !input.checked)) continue;
    if (input.type === 'checkbox') {
      fields[input.name] ||= [];
      if (input.checked) fields[input.name].push(input.value);
    } else if (input.type !== 'file') fields[input.name] = input.value;
  }
  return fields;
};
// Files are uploaded directly to the API; Python gets the stored file's id, or the error.
const filesOf = async form => {
  const files = {};
  for (const input of form.querySelectorAll('input[type=file]')) {
    const file = input.files[0];
    if (!file) continue;
    try { files[input.name] = { id: (await tuneloop.upload(file, input.dataset.purpose)).id }; }
    catch (error) { files[input.name] = { error: error.message || String(error) }; }
  }
  return files;
};

const shelf = form => 'tuneloop.form.' + form.dataset.keep;
const keep = form => sessionStorage.setItem(shelf(form), JSON.stringify(fieldsOf(form)));
const restore = form => {
  for (const input of form.querySelectorAll('[data-lasting]'))
    input.value ||= localStorage.getItem('tuneloop.' + input.dataset.lasting) || '';
  let fields = null;
  try { fields = JSON.parse(sessionStorage.getItem(shelf(form))); } catch { /* nothing kept, or not readable */ }
  for (const input of fields ? form.elements : []) {
    const kept = fields[input.name];
    if (kept === undefined || input.type === 'file') continue;
    if (input.type === 'radio') input.checked = kept === input.value;
    else if (input.type === 'checkbox') input.checked = kept.includes(input.value);
    else input.value = kept;
  }
};

// Gradio patches the old content into the new one, so a form may be another form's element whose fields still have the
// values from there.
const refresh = form => {
  if (form.turn > Number(form.dataset.turn)) return; // the response to the last submission hasn't arrived yet
  const token = `${form.dataset.keep} ${form.dataset.fresh}`;
  if (form.token !== undefined && form.token !== token) {
    // Text that is being typed isn't part of what this content responds to.
    const field = document.activeElement;
    const words = form.contains(field) && field.isTyped ? field.value : null;
    form.reset();
    if (words !== null) field.value = words;
  }
  form.token = token;
};

// Counts submissions: content that arrives meanwhile responds to an earlier one.
const turnOf = form => {
  if (!form || !('turn' in form.dataset)) return {};
  form.turn = Math.max(form.turn || 0, Number(form.dataset.turn)) + 1;
  return { turn: form.turn };
};
const act = (name, fields) => trigger('submit', { do: name, ...fields });
const press = clicked => {
  const { do: name, ...fields } = clicked.dataset;
  act(name, clicked.form ? { ...fieldsOf(clicked.form), ...fields, ...turnOf(clicked.form) } : fields);
};

const copy = async clicked => {
  const whole = new URL(clicked.dataset.copy, location.href).href;
  try { await navigator.clipboard.writeText(whole); } catch {
    // Without https the Clipboard API isn't available; the old command still works.
    const holder = Object.assign(document.createElement('textarea'), { value: whole });
    clicked.after(holder);
    holder.select();
    document.execCommand('copy');
    holder.remove();
    clicked.focus();
  }
  clicked.textContent = clicked.dataset.copied;
};

const count = () => {
  for (const clock of element.querySelectorAll('[data-countdown]')) {
    if (clock.token !== clock.dataset.clock) {
      clock.token = clock.dataset.clock;
      clock.until = Date.now() + 1000 * clock.dataset.countdown;
    }
    const left = Math.ceil((clock.until - Date.now()) / 1000);
    clock.textContent = Math.max(left, 0);
    const shown = clock.closest('[data-until-zero]');
    if (shown) shown.hidden = left <= 0;
  }
};

let focusId = null, focusedBy = null;
const settle = () => {
  for (const sent of element.querySelectorAll('[data-forget]'))
    sessionStorage.removeItem('tuneloop.form.' + sent.dataset.forget);
  element.querySelectorAll('form').forEach(refresh);
  element.querySelectorAll('form[data-keep]').forEach(restore);
  for (const whole of element.querySelectorAll('[data-address]'))
    whole.textContent = new URL(whole.dataset.address, location.href).href;
  for (const time of element.querySelectorAll('time[data-unix]'))
    time.textContent = new Date(1000 * time.dataset.unix)
      .toLocaleString(document.documentElement.lang, { dateStyle: 'medium', timeStyle: 'short' });
  count();
  const asked = element.querySelector('[data-focus]');
  if (asked && asked.dataset.focus !== focusedBy) {
    focusedBy = asked.dataset.focus;
    const ticked = asked.type === 'radio' && element.querySelector(`input[name="${asked.name}"]:checked`);
    const target = ticked || asked;
    target.focus({ preventScroll: true });
    if (target.type !== 'radio') target.select?.();
    target.scrollIntoView({ block: 'nearest' });
  } else if (focusId && document.activeElement === document.body) document.getElementById(focusId)?.focus();
};

element.addEventListener('click', event => {
  const clicked = event.target.closest('[data-do], [data-copy]');
  if (!clicked || clicked.tagName === 'FORM') return;
  event.preventDefault();
  if (clicked.dataset.confirm && !window.confirm(clicked.dataset.confirm)) return;
  if (clicked.dataset.copy) copy(clicked);
  else press(clicked);
});
element.addEventListener('submit', async event => {
  event.preventDefault();
  const form = event.target;
  act(form.dataset.do, { ...fieldsOf(form), ...turnOf(form), files: await filesOf(form) });
});
for (const kind of ['input', 'change']) element.addEventListener(kind, event => {
  const form = event.target.form;
  if (!form) return;
  event.target.isTyped = kind === 'input';
  if (form.dataset.keep) keep(form);
  if (event.target.dataset.lasting) localStorage.setItem('tuneloop.' + event.target.dataset.lasting, event.target.value);
  if (kind === 'change' && event.target.dataset.tell) act(event.target.dataset.tell, fieldsOf(form));
  if (kind === 'change' && 'send' in form.dataset) form.requestSubmit();
});
// A field that was restored while the user typed fires no change event.
element.addEventListener('focusout', event => {
  const field = event.target;
  if (!field.isTyped || !field.form || !('send' in field.form.dataset)) return;
  field.isTyped = false;
  field.form.requestSubmit();
});
element.addEventListener('keydown', event => {
  if (event.target.tagName !== 'TEXTAREA' || event.key !== 'Enter' || event.isComposing) return;
  const plain = 'enter' in event.target.dataset && !event.shiftKey;
  if (plain || event.ctrlKey || event.metaKey) { event.preventDefault(); event.target.form?.requestSubmit(); }
});
element.addEventListener('focusin', event => { focusId = event.target.id || null; });
if (props.spoken) element.setAttribute('aria-live', 'polite');
setInterval(count, 500);
watch('value', settle);
settle();
