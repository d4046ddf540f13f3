// Keyboard shortcuts of the rating page; runs after live.js in the block with the verdicts. They are off while the
// rater types or scrolls an answer, and when “Keyboard shortcuts” isn't ticked.
const TYPING = 'textarea, select, [contenteditable], input:not([type=radio]):not([type=checkbox])';
const wanted = () => localStorage.getItem('tuneloop.rate.keys') !== 'off';
const tick = () => {
  const box = element.querySelector('#rate-keys');
  if (box) { box.checked = wanted(); document.body.classList.toggle('rate-no-keys', !wanted()); }
};
const score = (group, mark) => {
  const groups = [...element.querySelectorAll('[data-score]')];
  const chosen = group.querySelector(`input[value="${mark}"]`);
  chosen.checked = true;
  chosen.dispatchEvent(new Event('change', { bubbles: true }));
  const next = groups[groups.indexOf(group) + 1];
  const target = next ? next.querySelector('input:checked') || next.querySelector('input')
    : element.querySelector('#rate-store');
  target.focus();
};
element.addEventListener('change', event => {
  if (event.target.id !== 'rate-keys') return;
  localStorage.setItem('tuneloop.rate.keys', event.target.checked ? 'on' : 'off');
  tick();
});
document.addEventListener('keydown', event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.repeat || event.defaultPrevented) return;
  const at = event.target;
  const arrow = event.key.startsWith('Arrow');
  if (event.key === 'Escape' && at.closest('.rate-form')) { element.querySelector('#rate-change')?.click(); return; }
  if (at.matches(TYPING) || !wanted()) return;
  const group = at.closest('[data-score]');
  if (group && /^[1-5]$/.test(event.key)) { event.preventDefault(); score(group, event.key); return; }
  if (arrow && (at.matches('input') || at.closest('.rate-scroll, .rate-question, .tl-language'))) return;
  if (event.key === 'Enter' && at.closest('button, a, summary')) return;
  const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const meant = [...document.querySelectorAll('.tl-page-rate [data-key]')]
    .find(button => button.dataset.key.split(' ').includes(name) && !button.disabled && !button.closest('[hidden], fieldset:disabled'));
  if (meant) { event.preventDefault(); meant.click(); }
});
watch('value', tick);
tick();
