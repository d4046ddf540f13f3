// Uploads on the data page: a dropped or selected file is sent directly to the API; Python gets the result.
const uploadAll = async files => {
  for (const file of files) {
    const shown = element.querySelector('.data-progress');
    shown.hidden = false;
    shown.querySelector('b').textContent = file.name;
    const bar = shown.querySelector('progress');
    bar.value = 0;
    try {
      const stored = await tuneloop.upload(file, 'fine-tune', (sent, whole) => { bar.value = (100 * sent) / whole; });
      act('uploaded', { file: stored.id });
    } catch (error) {
      act('refused', { name: file.name, message: error.message || String(error) });
    }
  }
  const shown = element.querySelector('.data-progress');
  if (shown) shown.hidden = true;
};
const zone = () => element.querySelector('.data-drop');
element.addEventListener('change', event => {
  if (event.target.type !== 'file') return;
  const files = [...event.target.files];
  event.target.value = '';
  uploadAll(files);
});
for (const kind of ['dragover', 'dragleave', 'drop']) element.addEventListener(kind, event => {
  event.preventDefault();
  zone().classList.toggle('data-over', kind === 'dragover');
  if (kind === 'drop') uploadAll([...event.dataTransfer.files]);
});
watch('value', () => { if (element.querySelector('[data-reload]')) location.reload(); });
